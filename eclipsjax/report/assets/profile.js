// The profile tool's handling: a line drawn on the map, its numbers, two markers on the plot, a file to take away.
"use strict";

(() => {
  const tools = window.eclipsjax;
  const NEAR = 18;

  // The map as a picture of its own pixels, coloured from the lowest to the highest height.
  function coloured(data) {
    const picture = document.createElement("canvas");
    Object.assign(picture, { width: data.width, height: data.height });
    const paint = picture.getContext("2d"), image = paint.createImageData(data.width, data.height);
    const [low, high] = tools.range(data.height_nm);
    data.height_nm.forEach((v, i) => {
      const k = 3 * Math.max(0, Math.min(255, Math.round((255 * (v - low)) / (high - low || 1))));
      image.data.set([data.colours[k], data.colours[k + 1], data.colours[k + 2], 255], 4 * i);
    });
    paint.putImageData(image, 0, 0);
    return picture;
  }

  // CSS pixels per map pixel, so that the map fits its box.
  function sized(canvas, data) {
    const wide = canvas.parentElement.clientWidth;
    const size = Math.min(wide / data.width, Math.max(320, Math.min(600, wide)) / data.height);
    canvas.style.width = `${Math.max(1, size * data.width)}px`;
    canvas.style.height = `${Math.max(1, size * data.height)}px`;
    return size;
  }

  function drawLine(paint, line, size, data) {
    const [x0, y0, x1, y1] = line.map((v) => (v + 0.5) * size);
    const inside = (v, count) => Math.max(Math.min(10, 0.5 * count * size), Math.min(count * size - 10, v));
    for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
      paint.strokeStyle = colour;
      paint.lineWidth = width;
      paint.beginPath();
      paint.moveTo(x0, y0);
      paint.lineTo(x1, y1);
      paint.stroke();
    }
    paint.font = "600 13px system-ui, sans-serif";
    paint.textAlign = "center";
    paint.textBaseline = "middle";
    for (const [endX, endY, name] of [[x0, y0, "A"], [x1, y1, "B"]]) {
      const x = inside(endX, data.width), y = inside(endY, data.height);
      paint.beginPath();
      paint.arc(x, y, 9, 0, 2 * Math.PI);
      paint.fillStyle = "rgba(0,0,0,0.75)";
      paint.fill();
      paint.strokeStyle = "#fff";
      paint.lineWidth = 1.5;
      paint.stroke();
      paint.fillStyle = "#fff";
      paint.fillText(name, x, y + 0.5);
    }
  }

  function scaleBar(paint, data, size) {
    const width_nm = data.width * data.pixel_nm, power = Math.pow(10, Math.floor(Math.log10(0.3 * width_nm)));
    const bar = power * [5, 2, 1].find((m) => m * power <= 0.3 * width_nm * (1 + 1e-9));
    const long = (bar / data.pixel_nm) * size, [right, level] = [0.96 * data.width * size, data.height * size - 12];
    paint.fillStyle = "#000";
    paint.fillRect(right - long - 1, level - 1, long + 2, 6);
    paint.fillStyle = "#fff";
    paint.fillRect(right - long, level, long, 4);
    paint.font = "600 13px system-ui, sans-serif";
    paint.textAlign = "right";
    paint.lineWidth = 3;
    paint.strokeStyle = "#000";
    paint.strokeText(tools.lengthText(bar), right, level - 10);
    paint.fillText(tools.lengthText(bar), right, level - 10);
  }

  function drawMap(canvas, picture, data, line) {
    const size = sized(canvas, data), scale = tools.fit(canvas), paint = canvas.getContext("2d");
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.imageSmoothingEnabled = size < 1;
    paint.drawImage(picture, 0, 0, size * data.width, size * data.height);
    scaleBar(paint, data, size);
    drawLine(paint, line, size, data);
    return size;
  }

  function tell(root, found, markers) {
    const n = tools.numbers(found, markers), say = (name, text) => {
      root.querySelector(`[data-part="${name}"]`).textContent = text;
    };
    const at = (i) => {
      const s = found.std_nm ? found.std_nm[i] : NaN;
      return tools.withStd(found.height_nm[i], s) + " nm";
    };
    say("ends", `${at(0)}, ${at(found.height_nm.length - 1)}`);
    say("length", tools.lengthText(n.length_nm));
    say("rise", `${tools.digits(n.rise_nm, 4)} nm`);
    say("angle", `${tools.digits(n.angle_deg, 3)}\u00b0`);
    const truth = n.true_step_nm === null ? "" : ` (true ${tools.digits(n.true_step_nm, 4)} nm)`;
    say("step", `${tools.digits(n.step_nm, 4)} nm${truth}`);
  }

  // Calls with places relative to the canvas while a pointer is down.
  function drag(canvas, down, move) {
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    let held = null;
    canvas.addEventListener("pointerdown", (event) => {
      held = down(place(event));
      if (held === null) return;
      canvas.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => held !== null && move(held, place(event)));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (held = null));
  }

  function dragLine(canvas, state, data, redraw) {
    const toMap = ([x, y]) => [
      Math.max(0, Math.min(data.width - 1, x / state.size - 0.5)),
      Math.max(0, Math.min(data.height - 1, y / state.size - 0.5)),
    ];
    const down = (place) => {
      const ends = [state.line.slice(0, 2), state.line.slice(2)].map((end) =>
        Math.hypot(...end.map((v, k) => (v + 0.5) * state.size - place[k])));
      const nearest = ends[0] < ends[1] ? 0 : 1;
      if (ends[nearest] < NEAR) return nearest;
      const spot = toMap(place);
      state.line = [...spot, ...spot];
      redraw();
      return 1;
    };
    drag(canvas, down, (end, place) => {
      const spot = toMap(place);
      state.line = end === 0 ? [...spot, ...state.line.slice(2)] : [...state.line.slice(0, 2), ...spot];
      redraw();
    });
  }

  function dragMarkers(canvas, state, redraw) {
    const down = ([x]) => {
      const share = tools.shareAt(canvas, x), far = state.markers.map((m) => Math.abs(m - share));
      const nearest = far[0] <= far[1] ? 0 : 1;
      return far[nearest] * canvas.clientWidth < 2 * NEAR ? nearest : null;
    };
    drag(canvas, down, (k, [x]) => {
      state.markers[k] = tools.shareAt(canvas, x);
      state.placed = true;
      redraw();
    });
  }

  function save(name, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function start(root, data) {
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    const map = find("map"), plotted = find("plot"), picture = coloured(data);
    const state = { line: [...data.line], markers: [], placed: false, size: 1, found: null };
    root.classList.add("live");
    const draw = () => {
      state.found = tools.profile(data, state.line);
      if (!state.placed) state.markers = tools.clearestStep(state.found);
      state.size = drawMap(map, picture, data, state.line);
      tools.plot(plotted, state.found, state.markers);
      tell(root, state.found, state.markers);
    };
    const redraw = tools.onceAFrame(draw);
    dragLine(map, state, data, redraw);
    dragMarkers(plotted, state, redraw);
    find("whole").addEventListener("click", () => {
      Object.assign(state, { line: [...data.line], placed: false });
      redraw();
    });
    find("save").addEventListener("click", () => save("profile.csv", tools.csv(state.found)));
    tools.onResize(map.parentElement, redraw);
    draw();
    return { state, draw, map, plot: plotted };
  }

  tools.startProfile = start;
})();
