// Runs once for each part of the page. Buttons name the event that they send: 'sample', 'choose', 'visit', 'here'.
const one = (selector) => element.querySelector(selector);
const stage = () => one(".ms-stage");
const view = () => one(".ms-view");
const tool = () => one("input[name=ms-tool]:checked")?.value ?? "box";
const pictureSize = () => [Number(stage().dataset.width), Number(stage().dataset.height)];
let start = null;
let painted = false;
let pressed = null;

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-event]");
  if (button) pressed = button.dataset;
  if (button) trigger(button.dataset.event, JSON.parse(button.dataset.detail || "{}"));
  if (event.target.closest(".ms-clear")) clearDrawing();
  if (event.target.closest(".ms-here")) sendRegion();
});

element.addEventListener("input", (event) => {
  if (event.target.matches(".ms-slider")) stage().style.setProperty("--at", event.target.value + "%");
  if (event.target.matches(".ms-number")) showBox(numbers());
});

element.addEventListener("change", (event) => {
  if (event.target.name === "ms-mode") {
    stage().dataset.mode = event.target.value;
    if (event.target.value === "correct") showBox(numbers());
  }
  if (event.target.name === "ms-tool") {
    stage().dataset.tool = event.target.value;
    if (event.target.value === "box") showBox(numbers());
  }
});

// Drawing: a box, or strokes of a brush, in pixels of the picture.
const at = (event) => {
  const area = view().getBoundingClientRect();
  const [width, height] = pictureSize();
  const inside = (value, most) => Math.round(Math.min(Math.max(value, 0), 1) * most);
  return [
    inside((event.clientX - area.left) / area.width, width),
    inside((event.clientY - area.top) / area.height, height),
  ];
};
const numbers = () => [...element.querySelectorAll(".ms-number")].map((field) => Number(field.value));
const showBox = ([x0, y0, x1, y1]) => {
  const [width, height] = pictureSize();
  const box = one(".ms-box");
  if (!box) return;
  box.hidden = tool() !== "box";
  box.style.left = (100 * x0) / width + "%";
  box.style.top = (100 * y0) / height + "%";
  box.style.width = (100 * (x1 - x0)) / width + "%";
  box.style.height = (100 * (y1 - y0)) / height + "%";
};
const canvas = () => {
  const sheet = one(".ms-brush");
  const [width, height] = pictureSize();
  const scale = Math.min(1, 1024 / Math.max(width, height));
  if (!sheet.dataset.ready) {
    sheet.width = Math.round(width * scale);
    sheet.height = Math.round(height * scale);
    sheet.dataset.ready = "yes";
    painted = false;
  }
  return sheet;
};
const stroke = (from, to) => {
  const sheet = canvas();
  const pen = sheet.getContext("2d");
  const scale = sheet.width / pictureSize()[0];
  pen.strokeStyle = "#e4572e";
  pen.lineWidth = (Number(one(".ms-width").value) / 100) * Math.min(sheet.width, sheet.height);
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(from[0] * scale, from[1] * scale);
  pen.lineTo(to[0] * scale + 0.01, to[1] * scale);
  pen.stroke();
  painted = true;
};
const clearDrawing = () => {
  const sheet = one(".ms-brush");
  delete sheet.dataset.ready;
  canvas();
};
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".ms-view") || stage()?.dataset.mode !== "correct") return;
  event.preventDefault();
  start = at(event);
  view().setPointerCapture(event.pointerId);
  if (tool() === "brush") stroke(start, start);
});
element.addEventListener("pointermove", (event) => {
  if (!start) return;
  const now = at(event);
  if (tool() === "brush") {
    stroke(start, now);
    start = now;
    return;
  }
  const box = [0, 1].map((axis) => Math.min(start[axis], now[axis]));
  box.push(...[0, 1].map((axis) => Math.max(start[axis], now[axis])));
  if (box[2] - box[0] < 2 || box[3] - box[1] < 2) return;
  [...element.querySelectorAll(".ms-number")].forEach((field, index) => (field.value = box[index]));
  showBox(box);
});
for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => (start = null));
const sendRegion = () => {
  if (tool() === "box") {
    trigger("here", { box: numbers() });
    return;
  }
  const strokes = canvas();
  const mask = document.createElement("canvas");
  mask.width = strokes.width;
  mask.height = strokes.height;
  const pen = mask.getContext("2d");
  if (painted) pen.drawImage(strokes, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = "white";
  pen.fillRect(0, 0, mask.width, mask.height);
  pen.globalCompositeOperation = "destination-over";
  pen.fillStyle = "black";
  pen.fillRect(0, 0, mask.width, mask.height);
  trigger("here", { mask: mask.toDataURL("image/png") });
};

// A new version of this part replaces its elements: keep the keyboard where it was, and show a new result.
watch("value", () => {
  if (pressed) {
    const again = [...element.querySelectorAll("[data-event]")].find((button) => button.dataset.detail === pressed.detail);
    again?.focus({ preventScroll: true });
    pressed = null;
  }
  if (one(".ms-slider")) stage().scrollIntoView({ block: "nearest" });
});

// Pictures that are opened, dropped or pasted are sent to the server as files, byte for byte.
if (one(".ms-file")) {
  const open = async (files) => {
    const picture = [...(files ?? [])][0];
    if (!picture) return;
    const form = new FormData();
    form.append("image", picture);
    try {
      const answer = await fetch("/pictures", { method: "POST", body: form });
      const told = await answer.json();
      if (answer.ok) trigger("opened", { name: told.name });
      else trigger("refused", { message: told.error.message });
    } catch {
      trigger("refused", { message: "the picture could not be sent to the server" });
    }
  };
  element.addEventListener("change", (event) => {
    if (!event.target.matches(".ms-file")) return;
    open([...event.target.files]);
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    open(event.clipboardData.files);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    open(event.dataTransfer?.files);
  });
}
