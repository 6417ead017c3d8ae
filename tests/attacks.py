"""Texts that would run in a page that shows them as they are; one that does is called `7`."""

ATTACKS = (
    "<script>document.title=7</script>",
    "</script><script>document.title=7</script>",
    "<img src=x onerror=document.title=7>",
    "'\"><svg onload=document.title=7>",
    "--></textarea></template></pre><img src=x onerror=document.title=7>",
    "<!--<script>",
    "<plaintext>",
)
