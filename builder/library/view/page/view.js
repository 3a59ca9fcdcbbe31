"use strict";
// The page of `builder view`: all it shows comes from the server that gave it, below the token of its own address.

const $ = (id) => document.getElementById(id);
const PLANES = { axial: 0, coronal: 1, sagittal: 2, all: 0 }; // the axis of superior, anterior, right along which the slider moves
const SIDES = { axial: ["A", "R"], coronal: ["S", "R"], sagittal: ["S", "P"] }; // what lies above and to the left
const AHEAD = [1, 2, 3, -1]; // samples that are made ready before they are asked for, from the one in view

const state = { dataset: null, positions: [], at: 0, sample: null, marked: new Set(), image: 0, window: 0, plane: "axial",
  opacity: 0.5, masks: true, turn: 0, slice: null, moving: null, opening: null, leaving: new AbortController(), drawing: 0 };
const fetched = new Map(); // address -> promise of its content; only those near the sample in view

const viewer = new niivue.Niivue({
  backColor: [0, 0, 0, 1], show3Dcrosshair: false, crosshairWidth: 0, isRadiologicalConvention: true, loadingText: "",
  clipPlaneHotKey: "", viewModeHotKey: "", dragAndDropEnabled: false, isOrientCube: false, multiplanarShowRender: 0, // never in 3D
  isNearestInterpolation: true, logLevel: "silent",
});

async function ask(path, options) {
  const answer = await fetch(path, options);
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error || "the server refused");
  return said;
}

function kept(path, read) {
  if (!fetched.has(path)) {
    const content = fetch(path).then((answer) => {
      if (!answer.ok) return answer.json().then((said) => { throw new Error(said.error); });
      return read(answer);
    });
    fetched.set(path, content);
    content.catch(() => { if (fetched.get(path) === content) fetched.delete(path); }); // asked again next time
  }
  return fetched.get(path);
}
const asJson = (answer) => answer.json();
const asPicture = async (answer) => ({ url: URL.createObjectURL(await answer.blob()), limits: JSON.parse(answer.headers.get("X-Limits")) });

function image() { return state.dataset.images[state.image]; }
function opacity() { return state.masks ? state.opacity : 0; }
function pathOfPicture(position) {
  const look = { plane: state.plane === "all" ? "axial" : state.plane, window: image().windows[state.window], opacity: opacity() };
  if (state.slice !== null && position === state.positions[state.at]) look.slice = state.slice;
  return `picture/${position}/${image().field}/${image().channel}?${new URLSearchParams(look)}`;
}

// What is known of one sample, and its picture.
function load(position) {
  return Promise.all([kept(`api/sample/${position}/${image().field}`, asJson), kept(pathOfPicture(position), asPicture)]);
}

// One after the other, so that the next sample comes first; whoever goes on meanwhile begins anew from there.
async function loadAhead(turn) {
  for (const by of AHEAD) {
    const position = state.positions[state.at + by];
    if (position !== undefined) await load(position).catch(() => {});
    if (turn !== state.turn) return;
  }
}

function forget(near) {
  for (const [path, content] of fetched) {
    if (near.has(Number(path.split("/")[path.startsWith("api") ? 2 : 1]))) continue;
    fetched.delete(path);
    content.then(({ url }) => url && URL.revokeObjectURL(url), () => {});
  }
}

function tell(message) { $("message").textContent = message; }

// The picture of a slice, which the server draws. The viewer takes its place when somebody asks for more.
async function show() {
  const turn = ++state.turn;
  const position = state.positions[state.at];
  const { slice } = state;
  state.leaving.abort();
  state.opening = null;
  $("loading").hidden = true;
  $("count").textContent = `${state.positions.length ? state.at + 1 : 0} of ${state.positions.length}`;
  $("empty").hidden = state.positions.length > 0;
  if (position === undefined) {
    state.sample = null;
    $("canvas").hidden = $("picture").hidden = $("above").hidden = $("beside").hidden = true;
    document.body.dataset.shown = "none";
    return;
  }
  try {
    const [sample, { url }] = await load(position);
    if (turn !== state.turn) return; // somebody went on meanwhile
    $("picture").src = url;
    await $("picture").decode();
    if (turn !== state.turn) return;
    state.sample = sample;
    document.querySelectorAll(".deep").forEach((label) => { label.hidden = sample.flat; });
    showPicture(true);
    if (state.slice === null) tellSlider(sample.focus);
    tellSample();
    tell("");
    Object.assign(document.body.dataset, { shown: position, slice });
    if (state.plane === "all") withVolume(turnViewer);
    forget(new Set([0, ...AHEAD].map((by) => state.positions[state.at + by])));
    loadAhead(turn);
  } catch (error) { if (turn === state.turn) tell(error.message); }
}

function showPicture(shown) {
  $("picture").hidden = !shown;
  $("canvas").hidden = shown;
  const lettered = shown && !state.sample.flat; // the viewer draws its own
  $("above").hidden = $("beside").hidden = !lettered;
  if (lettered) [$("above").textContent, $("beside").textContent] = SIDES[state.plane] || SIDES.axial;
  Object.assign(document.body.dataset, { viewer: !shown, plane: state.plane }); // for tests and benchmarks
}

// Does what needs the whole volume. It is fetched first where the picture is still in view.
function withVolume(action) {
  if (!state.sample || state.sample.flat) return;
  const turn = state.turn;
  state.opening ||= open(turn);
  state.opening.then(() => { if (turn === state.turn) action(); }, (error) => {
    if (turn !== state.turn) return;
    state.opening = null;
    $("loading").hidden = true;
    tell(error.message);
  });
}

let attached = null; // whoever looks at pictures only needs no WebGL

async function open(turn) {
  const { position, legend } = state.sample;
  const { field, channel } = image();
  $("loading").hidden = false;
  state.leaving = new AbortController();
  const paths = [`volume/${position}/${field}/${channel}`, ...(legend.length ? [`overlay/${position}/${field}`] : [])];
  const { signal } = state.leaving;
  const volumes = await Promise.all(paths.map(async (path) => {
    const answer = await fetch(path, { signal });
    if (!answer.ok) throw new Error((await answer.json()).error);
    return niivue.NVImage.loadFromUrl({ url: await answer.arrayBuffer(), name: "volume.nii", colormap: "gray" });
  }));
  const { limits } = await kept(pathOfPicture(position), asPicture);
  if (turn !== state.turn) return;
  $("canvas").hidden = false; // below the picture, so that the viewer knows its size
  attached ||= viewer.attachToCanvas($("canvas")).then(leaveOutGradients);
  await attached;
  if (turn !== state.turn) return;
  draw(volumes, limits);
  showPicture(false);
  $("loading").hidden = true;
}

// All at once: the viewer computes every layer anew whenever a volume is added to it.
function draw(volumes, limits) {
  const { legend, focus, size } = state.sample;
  const [first, overlay] = volumes;
  if (overlay) {
    const colours = [[0, 0, 0], ...legend.map((entry) => entry.colour)];
    overlay.setColormapLabel({ R: colours.map((c) => c[0]), G: colours.map((c) => c[1]), B: colours.map((c) => c[2]),
      A: colours.map((_, n) => (n ? 255 : 0)), I: colours.map((_, n) => n), labels: ["", ...legend.map((e) => e.name)] });
  }
  Object.assign(viewer, { volumes, back: first, overlays: volumes.slice(1) });
  setLook(limits);
  const place = [...focus];
  if (state.slice !== null) place[PLANES[state.plane]] = state.slice;
  viewer.scene.crosshairPos = [2, 1, 0].map((axis) => (place[axis] + 0.5) / size[axis]);
  turnViewer();
  viewer.drawScene();
}

// Renderings in 3D, which are not shown, need the gradients of a volume. Nine tenths of the time that a volume took without
// a graphics card went there: this shader moves every corner out of sight, so that nothing is computed.
function leaveOutGradients() {
  const { gl } = viewer;
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, "void main() { gl_Position = vec4(2.0, 2.0, 2.0, 1.0); }"],
    [gl.FRAGMENT_SHADER, "precision lowp float; out vec4 colour; void main() { colour = vec4(0.0); }"]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, `#version 300 es\n${text}`);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  const nothing = { uniforms: {}, use: () => gl.useProgram(program) };
  for (const name of ["blurShader", "gradientPrePassShader", "sobelFirstOrderShader", "sobelSecondOrderShader"]) viewer[name] = nothing;
}

function setPlane(plane) {
  state.plane = $("plane").value = plane;
  state.slice = null;
  if (state.opening || plane === "all") withVolume(turnViewer); else show();
}

function turnViewer() {
  const types = { axial: viewer.sliceTypeAxial, coronal: viewer.sliceTypeCoronal, sagittal: viewer.sliceTypeSagittal,
    all: viewer.sliceTypeMultiplanar };
  tellSlider(placeInViewer());
  if (viewer.opts.sliceType !== types[state.plane]) viewer.setSliceType(types[state.plane]);
  document.body.dataset.plane = state.plane;
}

function placeInViewer() {
  return state.sample.size.map((count, axis) => Math.min(count - 1, Math.floor(viewer.scene.crosshairPos[2 - axis] * count)));
}

function tellSlider(place) {
  const axis = PLANES[state.plane];
  $("slice").max = state.sample.size[axis] - 1;
  $("slice").value = place[axis];
}

function setSlice(number) {
  if (!state.sample || state.sample.flat) return;
  $("slice").value = number; // the nearest one that there is
  if (state.opening) return withVolume(() => { state.drawing ||= requestAnimationFrame(drawSlice); }); // once for all asked for
  state.slice = Number($("slice").value);
  state.moving ||= move();
}

// One picture after the other: of the slices that were asked for meanwhile, only the last is drawn.
async function move() {
  let shown;
  do {
    shown = state.slice;
    await show();
  } while (shown !== state.slice && state.slice !== null && !state.opening);
  state.moving = null;
}

function drawSlice() {
  state.drawing = 0;
  if (document.body.dataset.viewer !== "true") return;
  const axis = PLANES[state.plane];
  viewer.scene.crosshairPos[2 - axis] = (Number($("slice").value) + 0.5) / state.sample.size[axis];
  viewer.drawScene();
}

// Window and masks, in the viewer as in the picture.
function setLook([low, high]) {
  const [first, overlay] = viewer.volumes;
  [first.cal_min, first.cal_max] = [low, high];
  if (overlay) overlay.opacity = opacity();
  viewer.updateGLVolume();
}

async function again() {
  $("window").value = String(state.window);
  $("opacity").value = opacity();
  if (!state.opening) return show();
  const turn = state.turn;
  try {
    const { limits } = await kept(pathOfPicture(state.sample.position), asPicture);
    if (turn === state.turn) withVolume(() => setLook(limits));
  } catch (error) { if (turn === state.turn) tell(error.message); }
}

function rows(table, facts) {
  table.tBodies[0].replaceChildren(...facts.map(({ name, value }) => {
    const row = document.createElement("tr");
    row.append(document.createElement("td"), document.createElement("td"));
    row.cells[0].append(...name.split(/(?<=[._])/).flatMap((part) => [part, document.createElement("wbr")])); // where long names may break
    row.cells[1].textContent = value;
    return row;
  }));
}

function swatch(colour) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of [["width", "100%"], ["height", "100%"], ["fill", `rgb(${colour})`]]) box.setAttribute(name, value);
  svg.append(box);
  return svg;
}

function tellSample() {
  const { sample } = state;
  rows($("facts"), [{ name: "sample", value: sample.sample_key }, { name: "person", value: sample.person_key || "" },
    { name: "voxels", value: sample.shape.join(" × ") }, ...sample.facts.filter((fact) => fact.first)]);
  rows($("more"), sample.facts.filter((fact) => !fact.first));
  $("legend").replaceChildren(...sample.legend.map((entry) => {
    const item = document.createElement("li");
    item.append(swatch(entry.colour), `${entry.name}: ${entry.voxels.toLocaleString("en")} voxels`);
    return item;
  }));
  $("opacity").parentElement.hidden = !sample.legend.length; // nothing lies over this image
  tellMarks();
}

function tellMarks() {
  const sample = state.sample || {};
  const [one, whole] = [state.marked.has(sample.case_key), state.marked.has(sample.person_key)];
  $("mark").setAttribute("aria-pressed", one);
  $("mark_person").setAttribute("aria-pressed", whole);
  $("stage").classList.toggle("marked", one || whole);
  $("marks").textContent = `${state.marked.size} marked in ${state.dataset.leave_out}`;
}

async function mark(name) {
  if (!name) return;
  try {
    const said = await ask("api/mark", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name, marked: !state.marked.has(name) }) });
    state.marked = new Set(said.marked);
    tellMarks();
  } catch (error) { tell(error.message); }
}

function step(by) {
  const to = state.at + by;
  if (to < 0 || to >= state.positions.length) return;
  state.at = to;
  state.slice = null;
  show();
}

function setImage(number) {
  state.image = number;
  state.slice = null;
  state.window = 0;
  $("image").value = String(number);
  $("window").replaceChildren(...image().windows.map((name, n) => new Option(name, n)));
}

async function filter() {
  const asked = new URLSearchParams({ where: $("where").value, split: $("split").value, per_case: $("per_case").checked ? 1 : 0 });
  try {
    const { positions } = await ask(`api/samples?${asked}`);
    state.positions = positions;
    state.at = 0;
    state.slice = null;
    tell("");
    await show();
  } catch (error) { tell(error.message); }
}

const KEYS = {
  n: () => step(1), ArrowRight: () => step(1), p: () => step(-1), ArrowLeft: () => step(-1),
  x: () => mark(state.sample && state.sample.case_key), X: () => mark(state.sample && state.sample.person_key),
  ArrowUp: () => setSlice(Number($("slice").value) + 1), ArrowDown: () => setSlice(Number($("slice").value) - 1),
  w: () => { state.window = (state.window + 1) % image().windows.length; again(); },
  m: () => { state.masks = !state.masks; again(); },
  v: () => { const planes = Object.keys(PLANES); setPlane(planes[(planes.indexOf(state.plane) + 1) % planes.length]); },
  i: () => { setImage((state.image + 1) % state.dataset.images.length); show(); },
  "/": () => $("where").focus(),
};

function listen() {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=text], select, input[type=range]");
    if (typing && event.key === "Escape") event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault();
    event.stopPropagation();
    KEYS[event.key]();
  }, true);
  $("filter").addEventListener("submit", (event) => { event.preventDefault(); $("where").blur(); filter(); });
  $("split").addEventListener("change", filter);
  $("per_case").addEventListener("change", filter);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("mark").addEventListener("click", KEYS.x);
  $("mark_person").addEventListener("click", KEYS.X);
  $("image").addEventListener("change", () => { setImage(Number($("image").value)); show(); });
  $("window").addEventListener("change", () => { state.window = Number($("window").value); again(); });
  $("plane").addEventListener("change", () => setPlane($("plane").value));
  $("slice").addEventListener("input", () => setSlice(Number($("slice").value)));
  $("opacity").addEventListener("input", () => { state.opacity = Number($("opacity").value); state.masks = true; again(); });
  $("picture").addEventListener("click", () => withVolume(() => {}));
  $("picture").addEventListener("wheel", (event) => {
    if (!state.sample || state.sample.flat) return;
    event.preventDefault();
    setSlice(Number($("slice").value) + Math.sign(event.deltaY));
  }, { passive: false });
  viewer.onLocationChange = () => { if (document.body.dataset.viewer === "true") tellSlider(placeInViewer()); };
}

async function begin() {
  try {
    state.dataset = await ask("api/dataset");
  } catch (error) { return tell(error.message); }
  const { name, version, samples, cases, splits, columns, images, leave_out: file, marked } = state.dataset;
  document.title = `${name} – builder view`;
  $("name").textContent = name;
  $("name").title = `version ${version}: ${samples} samples of ${cases} cases; marks go to ${file}`;
  state.marked = new Set(marked);
  $("split").append(...splits.map((split) => new Option(split, split)));
  $("columns").append(...columns.map((column) => new Option(column)));
  $("image").append(...images.map(({ title, unit }, n) => new Option(unit ? `${title} (${unit})` : title, n)));
  setImage(0);
  tellMarks();
  listen();
  await filter();
}

begin();
