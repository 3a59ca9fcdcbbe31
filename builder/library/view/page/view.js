"use strict";
// The page of `builder view`: all it shows comes from the server that gave it, below the token of its own address.

const $ = (id) => document.getElementById(id);
const PLANES = { axial: 2, coronal: 1, sagittal: 0, all: 2 }; // the axis along which the slider moves
const AHEAD = [1, 2, 3, -1]; // samples that are made ready before they are asked for, from the one in view

const state = { dataset: null, positions: [], at: 0, sample: null, marked: new Set(), image: 0, window: 0, plane: "axial",
  opacity: 0.5, masks: true, turn: 0 };
const fetched = new Map(); // address -> promise of its content, decoded; only those near the sample in view

const viewer = new niivue.Niivue({
  backColor: [0, 0, 0, 1], show3Dcrosshair: false, crosshairWidth: 0, isRadiologicalConvention: true, loadingText: "",
  clipPlaneHotKey: "", viewModeHotKey: "", dragAndDropEnabled: false, isOrientCube: false, multiplanarForceRender: false,
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
const asUrl = (answer) => answer.blob().then((blob) => URL.createObjectURL(blob));
const asVolume = (answer) => answer.arrayBuffer().then((url) => niivue.NVImage.loadFromUrl({ url, name: "volume.nii", colormap: "gray" }));

function image() { return state.dataset.images[state.image]; }
function limits() { return image().windows[state.window]; }
function pathOfPicture(position) {
  const wanted = limits().limits;
  const range = wanted ? `low=${wanted[0]}&high=${wanted[1]}&` : "";
  return `picture/${position}/${image().field}/${image().channel}?${range}masks=${state.masks && state.opacity > 0 ? 1 : 0}`;
}

// Everything of one sample, ready to be drawn: what is known of it, then the address of its picture, or its volumes.
async function load(position) {
  const sample = await kept(`api/sample/${position}`, asJson);
  if (sample.flat) return { sample, shown: [await kept(pathOfPicture(position), asUrl)] };
  const { field, channel } = image();
  const paths = [`volume/${position}/${field}/${channel}`, ...(sample.legend.length ? [`overlay/${position}/${field}`] : [])];
  return { sample, shown: await Promise.all(paths.map((path) => kept(path, asVolume))) };
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
    content.then((url) => typeof url === "string" && URL.revokeObjectURL(url), () => {});
  }
}

function tell(message) { $("message").textContent = message; }

async function show() {
  const turn = ++state.turn;
  const position = state.positions[state.at];
  $("count").textContent = `${state.positions.length ? state.at + 1 : 0} of ${state.positions.length}`;
  $("empty").hidden = state.positions.length > 0;
  if (position === undefined) {
    state.sample = null;
    $("canvas").hidden = $("picture").hidden = true;
    document.body.dataset.shown = "none";
    return;
  }
  try {
    const { sample, shown } = await load(position);
    if (turn !== state.turn) return; // somebody went on meanwhile
    state.sample = sample;
    document.body.classList.toggle("flat", sample.flat);
    document.querySelectorAll(".deep").forEach((label) => { label.hidden = sample.flat; });
    $("canvas").hidden = sample.flat;
    $("picture").hidden = !sample.flat;
    if (sample.flat) { $("picture").src = shown[0]; await $("picture").decode(); } else draw(sample, shown);
    if (turn !== state.turn) return;
    tellSample();
    tell("");
    document.body.dataset.shown = String(position);
    forget(new Set([0, ...AHEAD].map((by) => state.positions[state.at + by])));
    loadAhead(turn);
  } catch (error) { if (turn === state.turn) tell(error.message); }
}

// All at once: the viewer computes every layer anew whenever a volume is added to it.
function draw(sample, volumes) {
  const [first, overlay] = volumes;
  state.automatic = [first.robust_min, first.robust_max];
  if (overlay) {
    const colours = [[0, 0, 0], ...sample.legend.map((entry) => entry.colour)];
    overlay.setColormapLabel({ R: colours.map((c) => c[0]), G: colours.map((c) => c[1]), B: colours.map((c) => c[2]),
      A: colours.map((_, n) => (n ? 255 : 0)), I: colours.map((_, n) => n), labels: ["", ...sample.legend.map((e) => e.name)] });
  }
  Object.assign(viewer, { volumes, back: first, overlays: volumes.slice(1) });
  setLook();
  viewer.scene.crosshairPos = viewer.mm2frac(sample.focus_mm);
  setPlane();
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

function setPlane() {
  const types = { axial: viewer.sliceTypeAxial, coronal: viewer.sliceTypeCoronal, sagittal: viewer.sliceTypeSagittal,
    all: viewer.sliceTypeMultiplanar };
  $("plane").value = state.plane;
  const axis = PLANES[state.plane];
  const count = viewer.volumes.length ? viewer.volumes[0].dimsRAS[axis + 1] : 1;
  $("slice").max = count - 1;
  $("slice").value = Math.min(count - 1, Math.floor(viewer.scene.crosshairPos[axis] * count));
  if (viewer.opts.sliceType !== types[state.plane]) viewer.setSliceType(types[state.plane]);
}

function setSlice(number) {
  const axis = PLANES[state.plane];
  const count = Number($("slice").max) + 1;
  const chosen = Math.max(0, Math.min(count - 1, number));
  viewer.scene.crosshairPos[axis] = (chosen + 0.5) / count;
  $("slice").value = chosen;
  viewer.drawScene();
}

// Window and masks: of a picture they are drawn by the server, of a volume by the viewer.
function setLook() {
  $("window").value = String(state.window);
  $("opacity").value = state.masks ? state.opacity : 0;
  const [first, overlay] = viewer.volumes;
  if (!first || !state.automatic) return;
  const { name, limits: wanted } = limits();
  const whole = [first.global_min, first.global_max];
  [first.cal_min, first.cal_max] = wanted || (name === "automatic" ? state.automatic : whole);
  if (overlay) overlay.opacity = state.masks ? state.opacity : 0;
  viewer.updateGLVolume();
}

function again() {
  if (state.sample && state.sample.flat) show();
  setLook();
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
  show();
}

function turnTo(name, options, setter) {
  const at = (options.indexOf(state[name]) + 1) % options.length;
  state[name] = options[at];
  setter();
}

function setImage(number) {
  state.image = number;
  state.window = 0;
  $("image").value = String(number);
  $("window").replaceChildren(...image().windows.map(({ name }, n) => new Option(name, n)));
}

async function filter() {
  const asked = new URLSearchParams({ where: $("where").value, split: $("split").value, per_case: $("per_case").checked ? 1 : 0 });
  try {
    const { positions } = await ask(`api/samples?${asked}`);
    state.positions = positions;
    state.at = 0;
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
  v: () => turnTo("plane", Object.keys(PLANES), setPlane),
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
  $("plane").addEventListener("change", () => { state.plane = $("plane").value; setPlane(); });
  $("slice").addEventListener("input", () => setSlice(Number($("slice").value)));
  $("opacity").addEventListener("input", () => { state.opacity = Number($("opacity").value); state.masks = true; again(); });
  viewer.onLocationChange = () => {
    const axis = PLANES[state.plane];
    $("slice").value = Math.floor(viewer.scene.crosshairPos[axis] * (Number($("slice").max) + 1));
  };
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
  await viewer.attachToCanvas($("canvas"));
  leaveOutGradients();
  await filter();
}

begin();
