// A word that is pointed at, tapped or reached with the arrow keys shows on the picture where the
// model looked to choose it: what it did not look at is darkened.
const DARK = 0.7;
const BRIGHTER = 0.8; // below 1 brings out what got a little

let kept = null; // a word that was clicked stays lit

function show(word) {
  const look = element.querySelector(".look");
  if (!look) return;
  look.querySelectorAll(".word.on").forEach((one) => one.classList.remove("on"));
  const canvas = look.querySelector("canvas");
  canvas.classList.toggle("on", Boolean(word));
  look.querySelector("figcaption").textContent = word
    ? `Where it looked for “${word.textContent}”`
    : look.querySelector(".word") ? "Point at a word to see where the model looked" : "";
  if (!word) return;
  word.classList.add("on");
  canvas.style.cssText = word.closest(".model").dataset.place;
  const side = Number(word.dataset.side);
  const map = word.dataset.map;
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(side, side);
  for (let at = 0; at < side * side; at++) {
    const weight = parseInt(map.slice(2 * at, 2 * at + 2), 16) / 255;
    pixels.data[4 * at + 3] = 255 * DARK * (1 - weight ** BRIGHTER);
  }
  pen.putImageData(pixels, 0, 0);
}

const wordAt = (target) => (target instanceof Element ? target.closest(".word") : null);

element.addEventListener("pointerover", (event) => {
  const word = wordAt(event.target);
  if (word) show(word);
});
element.addEventListener("pointerout", (event) => {
  if (wordAt(event.target)) show(kept?.isConnected ? kept : null);
});
element.addEventListener("click", (event) => {
  const word = wordAt(event.target);
  kept = word === kept ? null : word;
  show(kept);
});
element.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const words = [...(event.target.querySelectorAll?.(".word") ?? [])];
  if (!step || !words.length) return;
  event.preventDefault();
  const last = words.indexOf(kept);
  kept = words[last < 0 ? (step > 0 ? 0 : words.length - 1) : (last + step + words.length) % words.length];
  show(kept);
});
watch("value", () => { kept = null; show(null); });
show(null);
