"use strict";
// Heads that were searched for faces, and contact sheets of images that may show text: all comes from the server that gave this page.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let series = [], heads = [];
const drawn = new Map(); // image number -> rectangles as drawn now

async function ask(path, document) {
  const options = document && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(document) };
  const answer = await fetch(path, options);
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error || "the server refused");
  return said;
}

function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

async function change(path, document) {
  try {
    take(await ask(path, document));
    for (const number of document.images || []) drawn.delete(number);
    $("message").textContent = "";
  } catch (error) { $("message").textContent = error.message; }
  show();
}

function take(said) {
  ({ series, heads } = said);
  const all = series.flat(), left = all.filter((one) => one.decided === null).length, waiting = heads.filter(waits).length;
  const texts = all.length ? [`${left} of ${all.length} images wait; decisions go to ${said.file}`] : [];
  const faces = heads.length ? [`${waiting} of ${heads.length} heads wait; decisions go to ${said.head_file}`] : [];
  $("left").textContent = [...texts, ...faces].join("; ");
  document.body.dataset.left = left;
  document.body.dataset.heads = waiting;
}

function boxes(one) {
  if (!drawn.has(one.number)) drawn.set(one.number, (one.decided || one.boxes).map((box) => [...box]));
  return drawn.get(one.number);
}

function button(text, act) {
  const made = make("button", text, { type: "button" });
  made.addEventListener("click", act);
  return made;
}

function draw(svg, one) {
  for (const old of svg.querySelectorAll("rect")) old.remove();
  boxes(one).forEach(([top, bottom, left, right], at) => {
    const rect = document.createElementNS(SVG, "rect");
    for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) rect.setAttribute(key, value);
    rect.addEventListener("pointerdown", (event) => { event.stopPropagation(); boxes(one).splice(at, 1); draw(svg, one); });
    svg.append(rect);
  });
}

function place(svg, event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [point.y, point.x];
}

function canvas(one) {
  const svg = document.createElementNS(SVG, "svg"), image = document.createElementNS(SVG, "image");
  svg.setAttribute("viewBox", `0 0 ${one.columns} ${one.rows}`);
  svg.setAttribute("aria-label", `image ${one.number + 1}`);
  for (const [key, value] of Object.entries({ width: one.columns, height: one.rows, preserveAspectRatio: "none" })) image.setAttribute(key, value);
  svg.append(image);
  let from = null;
  svg.addEventListener("pointerdown", (event) => { from = place(svg, event); svg.setPointerCapture(event.pointerId); });
  svg.addEventListener("pointerup", (event) => {
    if (!from) return;
    const to = place(svg, event), [rows, columns] = [[from[0], to[0]], [from[1], to[1]]].map((pair) => pair.sort((a, b) => a - b));
    from = null;
    const box = [Math.floor(rows[0]), Math.ceil(rows[1]), Math.floor(columns[0]), Math.ceil(columns[1])];
    const inside = [Math.max(box[0], 0), Math.min(box[1], one.rows), Math.max(box[2], 0), Math.min(box[3], one.columns)];
    if (inside[1] - inside[0] > 1 && inside[3] - inside[2] > 1) { boxes(one).push(inside); draw(svg, one); }
  });
  draw(svg, one);
  return { svg, image };
}

function card(one) {
  const figure = make("figure", "", { class: one.decided === null ? "" : "decided" });
  const { svg, image } = canvas(one);
  let frame = 0, view = 0;
  const load = () => image.setAttribute("href", `picture/${one.number}/${frame}/${view}`);
  new IntersectionObserver((seen, watcher) => { if (seen[0].isIntersecting) { watcher.disconnect(); load(); } }, { rootMargin: "400px" }).observe(figure);
  const said = one.decided === null ? one.why : one.decided.length ? `decided: ${one.decided.length} rectangles` : "decided: no text";
  const acts = make("div");
  acts.append(
    button("blank rectangles", () => boxes(one).length
      ? change("api/decide", { images: [one.number], boxes: boxes(one) })
      : ($("message").textContent = "draw a rectangle first, or say that there is no text")),
    button("no text", () => change("api/decide", { images: [one.number], boxes: [] })),
    button("other window", () => { view += 1; load(); }),
  );
  if (one.decided !== null) acts.append(button("take back", () => change("api/undo", { images: [one.number] })));
  if (one.frames > 1) {
    const slider = make("input", "", { type: "range", min: 0, max: one.frames - 1, value: 0, "aria-label": "frame" });
    slider.addEventListener("change", () => { frame = Number(slider.value); load(); });
    acts.append(slider);
  }
  figure.append(svg, make("figcaption", `${one.modality} ${one.rows} × ${one.columns}${one.frames > 1 ? `, ${one.frames} frames` : ""}: ${said}`), acts);
  return figure;
}

function waits(one) { return one.waits && one.decided === null; }

function headCard(one) {
  const figure = make("figure", "", { class: one.decided === null ? "" : "decided" });
  if (one.picture) figure.append(make("img", "", { src: `head/${one.number}`, loading: "lazy", alt: `head ${one.number + 1}: as found, as it would leave, and in section` }));
  const share = one.voxels ? `${(100 * one.taken_out / one.voxels).toFixed(1)} % of its voxels go, ${one.brain_taken_out} of the brain` : "not searched";
  const said = one.decided ? `decided: ${one.decided}` : one.doubt || one.verdict;
  const acts = make("div");
  for (const [decision, text] of [["accept", "accept"], ["refuse", "leave the images out"], ["keep", "keep their pixels"]])
    acts.append(button(text, () => change("api/head", { heads: [one.number], decision })));
  if (one.decided !== null) acts.append(button("take back", () => change("api/head", { heads: [one.number], decision: "" })));
  figure.append(make("figcaption", `${said}; ${share}`), acts);
  return figure;
}

function headSheet() {
  const shown = $("open").checked ? heads.filter(waits) : heads;
  if (!shown.length) return [];
  const section = make("section", "", { id: "heads" }), head = make("div", "", { class: "head" }), sheet = make("div", "", { class: "sheet" });
  head.append(make("h2", `heads: ${shown.length}`), make("p", "Each as found, as it would leave, and in section; red goes.", { class: "small" }),
    button("accept all", () => change("api/head", { heads: shown.map((one) => one.number), decision: "accept" })));
  sheet.append(...shown.map(headCard));
  section.append(head, sheet);
  return [section];
}

async function each(group) { // every image keeps its own rectangles; those without any are left as they are
  for (const one of group) if (boxes(one).length) await change("api/decide", { images: [one.number], boxes: boxes(one) });
}

function show() {
  const sheets = headSheet();
  series.forEach((group, at) => {
    const shown = $("open").checked ? group.filter((one) => one.decided === null) : group;
    if (!shown.length) return;
    const section = make("section"), head = make("div", "", { class: "head" }), sheet = make("div", "", { class: "sheet" });
    head.append(make("h2", `series ${at + 1}: ${shown.length} images`),
      button("blank the rectangles of each", () => each(shown)),
      button("no text in any", () => change("api/decide", { images: shown.map((one) => one.number), boxes: [] })));
    sheet.append(...shown.map(card));
    section.append(head, sheet);
    sheets.push(section);
  });
  $("sheets").replaceChildren(...sheets);
}

$("open").addEventListener("change", show);
ask("api/queue").then((said) => { take(said); show(); document.body.dataset.ready = "1"; }, (error) => { $("message").textContent = error.message; });
