// A word that is pointed at, tapped or reached with the arrow keys shows its attention on the image:
// regions of low weight are darkened, as evaluation/figures.py says.
let pinned = null; // a word that was clicked stays lit

function show(word) {
  const view = element.querySelector(".single");
  if (!view) return;
  view.querySelectorAll(".word.on").forEach((other) => other.classList.remove("on"));
  const canvas = view.querySelector("canvas");
  canvas.classList.toggle("on", Boolean(word));
  view.querySelector("figcaption").textContent = word
    ? `Attention for “${word.textContent}” (brightest: ${word.dataset.largest} %)`
    : view.querySelector(".word") ? "Point at a word to see the attention of the model" : "";
  if (!word) return;
  word.classList.add("on");
  canvas.style.width = canvas.style.height = word.closest(".model").dataset.crop;
  const side = Number(word.dataset.side);
  const map = word.dataset.map;
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(side, side);
  for (let at = 0; at < side * side; at++) {
    pixels.data[4 * at + 3] = 255 - parseInt(map.slice(2 * at, 2 * at + 2), 16);
  }
  pen.putImageData(pixels, 0, 0);
}

const wordAt = (target) => (target instanceof Element ? target.closest(".word") : null);

element.addEventListener("pointerover", (event) => {
  const word = wordAt(event.target);
  if (word) show(word);
});
element.addEventListener("pointerout", (event) => {
  if (wordAt(event.target)) show(pinned?.isConnected ? pinned : null);
});
element.addEventListener("click", (event) => {
  const word = wordAt(event.target);
  pinned = word === pinned ? null : word;
  show(pinned);
});
element.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const words = [...(event.target.querySelectorAll?.(".word") ?? [])];
  if (!step || !words.length) return;
  event.preventDefault();
  const current = words.indexOf(pinned);
  pinned = words[current < 0 ? (step > 0 ? 0 : words.length - 1) : (current + step + words.length) % words.length];
  show(pinned);
});
watch("value", () => { pinned = null; show(null); });
show(null);
