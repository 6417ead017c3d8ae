"""Secrets that services issue: found by the form that each has published for its own."""

import re
from collections.abc import Iterator

# The secret is the group of a form, where it has one.
# By marks, one of which is in every such key: a pattern runs where one is, as few texts have any.
_FORMS = {
    ("PRIVATE KEY",): r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,8000}?"
    r"(?:-----END [A-Z ]{0,40}-----|\Z)",
    # AWS
    ("AKIA", "ASIA", "ABIA", "ACCA"): r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    ("ecret_access_key", "ECRET_ACCESS_KEY", "ecretAccessKey"): (
        r"(?i:secret_?access_?key)\W{1,6}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
    ),
    # Whatever an HTTP header proves with
    (
        "uthorization",
        "UTHORIZATION",
    ): r"(?i:authorization[\"']?\s*[:=]\s*[\"']?(?:basic|bearer|token))"
    r"\s+(?=\S*\d)([\w+/.~=-]{12,2000})",
    # GitHub, GitLab, Slack, Google
    ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"): r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b",
    ("github_pat_",): r"\bgithub_pat_\w{22,255}\b",
    ("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "gloas-", "glsoat-"): (
        r"\bgl(?:pat|dt|rt|cbt|ptt|ft|imt|oas|soat)-[\w.-]{20,64}\b"
    ),
    ("xox", "xapp-"): r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}\b|\bxapp-\d-[A-Za-z0-9-]{20,200}\b",
    ("hooks.slack",): r"hooks\.slack\.com/services/T\w{6,14}/B\w{6,14}/\w{20,30}",
    ("AIza", "ya29.", "GOCSPX-"): r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,300}|\bGOCSPX-[\w-]{28}",
    # Models: Hugging Face; OpenAI, Anthropic, OpenRouter; Groq, Replicate, Perplexity
    ("hf_",): r"\bhf_[A-Za-z0-9]{30,64}\b",
    ("sk-",): r"\bsk-(?:ant-|proj-|svcacct-|or-v1-)?[\w-]{32,200}",
    (
        "gsk_",
        "r8_",
        "pplx-",
    ): r"\bgsk_[A-Za-z0-9]{40,64}\b|\br8_\w{37}\b|\bpplx-[A-Za-z0-9]{40,64}\b",
    # Stripe, Shopify, Square
    ("k_live_", "k_test_", "whsec_"): r"\b(?:[srp]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,128}\b",
    ("shpat_", "shpca_", "shppa_", "shpss_"): r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b",
    ("sq0",): r"\bsq0(?:atp|csp)-[\w-]{22,43}",
    # Package registries, Docker, DigitalOcean
    ("npm_", "pypi-", "rubygems_"): (
        r"\bnpm_[A-Za-z0-9]{36}\b|\bpypi-[\w-]{50,250}|\brubygems_[0-9a-f]{48}\b"
    ),
    ("dckr_",): r"\bdckr_[po]at_[\w-]{20,64}",
    ("dop_v1_", "doo_v1_", "dor_v1_"): r"\bdo[opr]_v1_[0-9a-f]{64}\b",
    # SendGrid, Mailgun, Mailchimp; Telegram, Discord
    ("SG.",): r"\bSG\.[\w-]{16,32}\.[\w-]{32,64}",
    ("key-",): r"\bkey-[0-9a-f]{32}\b",
    ("-us",): r"\b[0-9a-f]{32}-us\d{1,2}\b",
    (":AA",): r"\b\d{8,10}:AA[\w-]{33}(?![\w-])",
    ("iscord", "ISCORD"): r"\b[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40}",
    # Azure
    ("AccountKey=",): r"(?<=AccountKey=)[A-Za-z0-9+/]{86}==",
    ("SharedAccessKey=",): r"(?<=SharedAccessKey=)[A-Za-z0-9+/]{43}=",
    ("Q~",): r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}(?![\w~-])",
    ("sig=",): r"(?<=[?&]sig=)[\w%+/-]{40,100}",
    # Databricks, Vault, Grafana, Linear, Notion, Postman, New Relic, Sentry, Supabase, Figma
    ("dapi", "hvs.", "hvb."): r"\bdapi[0-9a-f]{32}\b|\bhv[sb]\.[\w-]{24,200}",
    ("glsa_",): r"\bglsa_\w{32}_[0-9a-f]{8}\b",
    ("lin_api_", "ntn_"): r"\blin_api_[A-Za-z0-9]{40}\b|\bntn_[A-Za-z0-9]{40,50}\b",
    ("PMAK-", "NRAK-"): r"\bPMAK-[0-9a-f]{24}-[0-9a-f]{34}\b|\bNRAK-[A-Z0-9]{27}\b",
    ("sntrys_", "sntryu_"): r"\bsntry[su]_[\w=+/-]{40,200}",
    ("sbp_", "figd_"): r"\bsbp_[0-9a-f]{40}\b|\bfigd_[\w-]{40}",
    # Atlassian, age, JSON web tokens; name and password in an address
    ("ATATT3", "ATCTT3"): r"\bAT[AC]TT3[\w=-]{50,250}",
    ("AGE-SECRET-KEY-1",): r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}\b",
    ("eyJ",): r"\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}",
    ("://",): r"(?<=://)[^\s/:@]{1,64}:[^\s/:@]{3,128}(?=@[\w.-])",
}
# Of these a blank may be a part, or the whole is short; the mark of any other is in a long word.
_ANYWHERE = {"PRIVATE KEY", "ecret_access_key", "uthorization", "://"}
_COMPILED = [(marks, marks[0] in _ANYWHERE, re.compile(form)) for marks, form in _FORMS.items()]
SHORTEST = 16  # characters without a blank, and less than any of these has
_TWILIO = re.compile(r"[AS][CK][0-9a-f]{32}(?<![\w-].{34})(?![\w-])")  # "AC" is in many a text
# A literal that is given to a name like api_key: of no service known, but of no other use.
_GIVEN = re.compile(
    r"(?i:key|secret|token|passwd|password|pwd)[\"']?[ \t]{0,3}(?:[:=]|=>)[ \t]{0,3}"
    r"([\"']?)([A-Za-z0-9+/_.~=-]{20,200})(?![\w(\[/])"
)
_GIVEN_MARKS = ("key", "KEY", "Key", "ecret", "ECRET", "oken", "OKEN", "assw", "ASSW", "pwd", "PWD")
_ASSIGNED = re.compile(r"[:=>][ \t\"']{0,4}[A-Za-z0-9+/_.~=-]{20}")


def find_keys(text: str) -> Iterator[tuple[int, int]]:
    """The places of keys, tokens and private keys, in order and apart."""
    long = " ".join(word for word in text.split() if len(word) >= SHORTEST)
    if not long and "PRIVATE KEY" not in text:
        return
    end = 0
    for start, stop in sorted({*_issued(text, long), *_given(text)}):
        if start >= end:
            yield start, stop
            end = stop


def _issued(text: str, long: str) -> Iterator[tuple[int, int]]:
    if _TWILIO.search(long):
        yield from (match.span() for match in _TWILIO.finditer(text))
    for marks, anywhere, form in _COMPILED:
        searched = text if anywhere else long
        if any(mark in searched for mark in marks):
            yield from (match.span(match.lastindex or 0) for match in form.finditer(text))


def _given(text: str) -> Iterator[tuple[int, int]]:
    if any(mark in text for mark in _GIVEN_MARKS) and _ASSIGNED.search(text):
        for match in _GIVEN.finditer(text):
            if _is_random(match[2]):
                yield match.span(2)


def _is_random(text: str) -> bool:
    """Whether no person would write it: letters and at least a sixth of digits, no words."""
    digits = sum(character.isdigit() for character in text)
    return len(text) / 6 <= digits < len(text) and not re.search(r"[a-z]{7}|[A-Z]{7}|\d{9}", text)
