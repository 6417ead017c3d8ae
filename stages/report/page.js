// Filters the samples, opens a question at a click, and unfolds everything for print.
const samples = [...document.querySelectorAll("article")];
const words = document.querySelector("#words");
const outcome = document.querySelector("#outcome");
const more = document.querySelector("#more");
const FIRST = 12; // shown before anything is asked for
let all = false;

function filter() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const most = all || wanted.length || outcome.value !== "all" ? samples.length : FIRST;
  let shown = 0;
  for (const sample of samples) {
    const text = sample.textContent.toLowerCase();
    const fits = outcome.value === "all" || sample.dataset.outcome === outcome.value;
    sample.hidden = !(fits && shown < most && wanted.every((word) => text.includes(word)));
    shown += !sample.hidden;
  }
  more.hidden = most === samples.length;
  document.querySelector("#shown").textContent = `${shown} shown`;
}

if (words) {
  words.oninput = outcome.onchange = filter;
  more.onclick = () => { all = true; filter(); };
  filter();
}
for (const question of document.querySelectorAll(".question")) {
  question.onclick = () => question.classList.toggle("whole");
}
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => { for (const each of folded) each.open = false; });
