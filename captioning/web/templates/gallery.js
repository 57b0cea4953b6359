const list = document.querySelector(".cards"), cards = [...list.children];
const [filter, sort, references, count] = ["filter", "sort", "references", "count"]
  .map(id => document.getElementById(id));
const texts = cards.map(card => [...card.querySelectorAll(".caption, .references, .image-id")]
  .map(part => part.textContent).join(" ").toLowerCase());
const scores = new Map(cards.map(card => [card, card.dataset.scores.split(" ").map(parseFloat)]));
cards.forEach(card => card.tabIndex = -1);

function show() {
  const words = filter.value.toLowerCase().split(/\s+/);
  cards.forEach((card, at) => card.hidden = !words.every(word => texts[at].includes(word)));
  const shown = cards.filter(card => !card.hidden).length, all = cards.length.toLocaleString("en");
  count.textContent = (shown < cards.length ? shown + " of " : "") + all + " images";
}

function arrange() {
  const [column, sign] = sort.value.split(" ").map(Number);
  const order = [...cards];
  if (sort.value) order.sort((a, b) => sign * (scores.get(a)[column] - scores.get(b)[column]));
  list.append(...order);
}

function toggle() {
  references.setAttribute("aria-pressed", !list.classList.toggle("brief"));
}

const columns = () => getComputedStyle(list).gridTemplateColumns.split(" ").length;
const steps = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: columns,
  ArrowUp: () => -columns(), Home: () => -Infinity, End: () => Infinity };

function move(key) {
  const shown = [...list.children].filter(card => !card.hidden);
  const at = shown.indexOf(document.activeElement);
  // Until an image is chosen, the other keys scroll the page as ever.
  if (!shown.length || at < 0 && !["ArrowRight", "ArrowLeft"].includes(key)) return false;
  const onScreen = shown.findIndex(card => card.getBoundingClientRect().bottom > innerHeight / 4);
  const to = at < 0 ? onScreen : Math.max(0, Math.min(shown.length - 1, at + steps[key]()));
  shown[to].focus({ preventScroll: true });
  shown[to].scrollIntoView({ block: "nearest" });
  return true;
}

filter.addEventListener("input", show);
sort.addEventListener("change", arrange);
references.addEventListener("click", toggle);
document.addEventListener("keydown", event => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "Escape") { if (target === filter) { filter.value = ""; show(); } target.blur(); }
  if (target.matches("input, select")) return;
  if (key === "/") { event.preventDefault(); filter.focus(); }
  if (key === "r") toggle();
  if (key in steps && move(key)) event.preventDefault();
});
show(); arrange();  // a reload may keep what was typed and chosen
