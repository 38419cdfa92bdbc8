"use strict";
// The viewer: NiiVue (inside this page, packed) and what it is told. Nothing is unpacked before it is asked for.
(() => {
  const part = (name) => document.getElementById(`viewer-${name}`);
  const stage = part("stage");
  const WINDOWS = { abdomen: [400, 40], liver: [160, 90], vessels: [600, 170], lung: [1500, -600], bone: [1800, 400] };
  const AXES = ["sagittal", "coronal", "axial"];
  const ANGLES = ["turn", "tilt"];
  const say = (words) => { part("message").textContent = words; part("message").hidden = !words; };

  if (!document.createElement("canvas").getContext("webgl2") || !window.DecompressionStream) {
    say("The viewer needs WebGL 2, which this browser does not offer here. All pictures and numbers of this page are there without it.");
    part("open").hidden = true;
    return;
  }

  const cases = JSON.parse(part("data").textContent);
  let viewer, whole = {}, layers = {}, organs = [];

  async function unpack() {
    const packed = Uint8Array.from(atob(part("script").textContent.trim()), (letter) => letter.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  }

  async function open() {
    part("open").hidden = true;
    say("Opening the viewer …");
    try {
      await new Promise((done) => setTimeout(done));  // so that the words are seen
      if (!window.niivue) await unpack();
      viewer = new niivue.Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.55], crosshairWidth: 0.6, crosshairGap: 8,
        isRadiologicalConvention: true, sagittalNoseLeft: true, isResizeCanvas: true, dragAndDropEnabled: false, logLevel: "error",
        multiplanarShowRender: niivue.SHOW_RENDER.NEVER, loadingText: "", isOrientCube: true, tileMargin: 4,
        fontColor: [1, 1, 1, 0.9], fontMinPx: 11, fontSizeScaling: 0.3, show3Dcrosshair: false,
      });
      await viewer.attachToCanvas(part("canvas"), true);
      viewer.onLocationChange = readOut;
      viewer.onAzimuthElevationChange = readAngles;
      readAngles(viewer.scene.renderAzimuth, viewer.scene.renderElevation);
      stage.classList.add("open");
      for (const control of document.querySelectorAll("#viewer-controls [disabled]")) control.disabled = false;
      await show(Number(part("case").value));
      say("");
    } catch (error) {
      console.warn(error);
      stage.classList.remove("open");
      say(`The viewer could not start here (${error.message}). All pictures and numbers of this page are there without it.`);
    }
  }

  const image = (base64, name, more = {}) => niivue.NVImage.loadFromBase64({ base64, name: `${name}.nii.gz`, ...more });

  async function show(place) {
    const one = cases[place];
    organs = one.organs;
    const [width, level] = WINDOWS[part("window").value];
    const scan = await image(one.scan, "scan", { colormap: "gray", cal_min: level - width / 2, cal_max: level + width / 2 });
    whole = { truth: await image(one.truth, "truth"), predicted: await image(one.predicted, "predicted") };
    layers = { scan, truth: await image(one.truth, "truth"), predicted: await image(one.predicted, "predicted") };
    layers.predicted.img = rim(layers.predicted);
    const channel = (start) => [0, ...organs.map(({ colour }) => parseInt(colour.slice(start, start + 2), 16))];
    for (const layer of [layers.truth, layers.predicted]) {
      layer.setColormapLabel({
        R: channel(1), G: channel(3), B: channel(5), A: [0, ...organs.map(() => 255)],
        I: [0, ...organs.map(({ code }) => code)], labels: ["", ...organs.map(({ name }) => name)],
      });
    }
    for (const old of [...viewer.volumes]) viewer.removeVolume(old);
    for (const layer of Object.values(layers)) viewer.addVolume(layer);
    for (const [axis, name] of AXES.entries()) part(name).max = scan.dimsRAS[axis + 1] - 1;
    look();
    goTo(fullest(whole.truth, whole.predicted));
  }

  // What of a label map lies at its edge in some plane: so a prediction is seen as a line around the truth.
  function rim({ img, hdr }) {
    const [, nx, ny, nz] = hdr.dims;
    const edge = new img.constructor(img.length);
    for (let z = 0, at = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, at++) {
      const code = img[at];
      if (!code) continue;
      const inside = x > 0 && x < nx - 1 && y > 0 && y < ny - 1 && z > 0 && z < nz - 1
        && img[at - 1] === code && img[at + 1] === code && img[at - nx] === code && img[at + nx] === code
        && img[at - nx * ny] === code && img[at + nx * ny] === code;
      if (!inside) edge[at] = code;
    }
    return edge;
  }

  // Where each plane shows most of the organs, every organ counted by its share of its own largest cut.
  function fullest(truth, predicted) {
    const [, nx, ny, nz] = truth.dimsRAS;
    const areas = [nx, ny, nz].map((size) => organs.map(() => new Float64Array(size)));
    for (const labels of [truth, predicted]) {
      for (let z = 0; z < nz; z += 2) for (let y = 0; y < ny; y += 2) for (let x = 0; x < nx; x += 2) {
        const organ = organs.findIndex(({ code }) => code === labels.getValue(x, y, z));
        if (organ >= 0) [x, y, z].forEach((place, axis) => { areas[axis][organ][place]++; });
      }
      if (areas[0].some((area) => Math.max(...area))) break;  // the prediction is asked where the truth is empty
    }
    return areas.map((ofAxis) => {
      const shares = ofAxis.map((area) => { const most = Math.max(1, ...area); return area.map((n) => n / most); });
      const sums = ofAxis[0].map((_, place) => shares.reduce((sum, share) => sum + share[place], 0));
      const best = sums.indexOf(Math.max(...sums));
      return sums[best] ? best : Math.floor(sums.length / 2);
    });
  }

  function goTo(voxel) {
    viewer.scene.crosshairPos = voxel.map((place, axis) => (place + 0.5) / layers.scan.dimsRAS[axis + 1]);
    viewer.createOnLocationChange();
    viewer.drawScene();
  }

  function readOut({ vox }) {
    const place = [0, 1, 2].map((axis) => Math.min(Math.max(Math.round(vox[axis]), 0), layers.scan.dimsRAS[axis + 1] - 1));
    AXES.forEach((name, axis) => { part(name).value = place[axis]; });
    const organ = (labels) => organs.find(({ code }) => code === labels.getValue(...place))?.name ?? "none";
    part("place").textContent = `${Math.round(layers.scan.getValue(...place))} HU · truth: ${organ(whole.truth)} · prediction: ${organ(whole.predicted)}`;
  }

  function readAngles(azimuth, elevation) {
    part("turn").value = ((azimuth % 360) + 360) % 360;
    part("tilt").value = elevation;
  }

  // The controls' say, all at once.
  function look() {
    const view = document.querySelector("#viewer-controls [name=view]:checked").value;
    const solid = view === "render";
    const types = niivue.SLICE_TYPE;
    stage.dataset.view = view;
    viewer.setSliceType({ planes: types.MULTIPLANAR, axial: types.AXIAL, coronal: types.CORONAL, sagittal: types.SAGITTAL, render: types.RENDER }[view]);
    const [width, level] = WINDOWS[part("window").value];
    layers.scan.cal_min = level - width / 2;
    layers.scan.cal_max = level + width / 2;
    layers.scan.opacity = solid ? 0 : 1;  // in 3D the body would hide its organs
    layers.truth.opacity = part("truth").checked ? (solid ? 1 : 0.38) : 0;
    layers.predicted.opacity = part("predicted").checked ? (solid ? (part("truth").checked ? 0.5 : 1) : 1) : 0;
    viewer.setVolumeRenderIllumination(solid ? 0.6 : 0);
    viewer.updateGLVolume();
  }

  part("open").addEventListener("click", open);
  part("controls").addEventListener("input", async ({ target }) => {
    if (!viewer) return;
    if (target === part("case")) await show(Number(target.value));
    else if (AXES.includes(target.name)) goTo(AXES.map((name) => Number(part(name).value)));
    else if (ANGLES.includes(target.name)) viewer.setRenderAzimuthElevation(...ANGLES.map((name) => Number(part(name).value)));
    else look();
  });
  for (const link of document.querySelectorAll("[data-view-case]")) {
    link.addEventListener("click", () => {
      part("case").value = link.dataset.viewCase;
      viewer ? show(Number(link.dataset.viewCase)) : open();
    });
  }
})();
