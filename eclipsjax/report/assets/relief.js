// The 3D view's handling: mouse, fingers, keys, the slider of exaggeration, and what is written over the picture.
"use strict";

(() => {
  const tools = window.eclipsjax;
  const FIRST = { yaw: -0.5, tip: 0.95, pan: [0, 0] };
  const INK = "#1c2430";

  function writeLabels(canvas, shape, pose, data) {
    const scale = tools.fit(canvas), paint = canvas.getContext("2d");
    const [wide, high] = [canvas.width / scale, canvas.height / scale];
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, wide, high);
    const seen = tools.view.camera(shape, pose, wide / high);
    const spot = (place) => {
      const [x, y] = seen.project(place);
      return [(0.5 + 0.5 * x) * wide, (0.5 - 0.5 * y) * high];
    };
    paint.font = "600 13px system-ui, sans-serif";
    paint.textBaseline = "middle";
    sideLengths(paint, shape, pose, spot);
    directions(paint, seen.turn);
    if (!pose.byGrey) colourBar(paint, wide, shape.relief_nm, data.colours);
  }

  function outlined(paint, text, x, y) {
    paint.lineWidth = 4;
    paint.strokeStyle = "rgba(255,255,255,0.9)";
    paint.strokeText(text, x, y);
    paint.fillStyle = INK;
    paint.fillText(text, x, y);
  }

  // The lengths of the two sides that lie lowest on the screen, outside of them.
  function sideLengths(paint, shape, pose, spot) {
    const longer = Math.max(shape.columns, shape.rows, 2) - 1;
    const [x, y] = [(0.5 * (shape.columns - 1)) / longer, (0.5 * (shape.rows - 1)) / longer];
    const centre = spot([0, 0, 0]);
    paint.textAlign = "center";
    for (const [middles, count] of [[[[0, -y, 0], [0, y, 0]], shape.columns], [[[-x, 0, 0], [x, 0, 0]], shape.rows]]) {
      const lowest = middles.map(spot).sort((a, b) => b[1] - a[1])[0];
      const away = [lowest[0] - centre[0], lowest[1] - centre[1]], far = Math.hypot(...away) || 1;
      const text = tools.lengthText(count * shape.pixel_nm);
      outlined(paint, text, lowest[0] + (44 * away[0]) / far, lowest[1] + (34 * away[1]) / far);
    }
  }

  function directions(paint, turn) {
    const start = [50, 62];
    paint.textAlign = "center";
    for (const [axis, name, colour] of [[0, "x", "#d55e00"], [1, "y", "#007a58"], [2, "z", "#0072b2"]]) {
      const [dx, dy] = [28 * turn[0][axis], -28 * turn[1][axis]];
      paint.strokeStyle = colour;
      paint.lineWidth = 2.5;
      paint.beginPath();
      paint.moveTo(...start);
      paint.lineTo(start[0] + dx, start[1] + dy);
      paint.stroke();
      if (Math.hypot(dx, dy) > 6) outlined(paint, name, start[0] + 1.4 * dx, start[1] + 1.4 * dy);
    }
  }

  function colourBar(paint, wide, relief, colours) {
    const [left, top, long] = [wide - 24, 26, 120];
    for (let i = 0; i < long; i++) {
      const k = 3 * Math.round((255 * (long - 1 - i)) / (long - 1));
      paint.fillStyle = `rgb(${colours[k]},${colours[k + 1]},${colours[k + 2]})`;
      paint.fillRect(left, top + i, 12, 1.5);
    }
    paint.textAlign = "right";
    outlined(paint, tools.digits(relief, 3) + " nm", left - 6, top + 4);
    outlined(paint, "0", left - 6, top + long - 4);
  }

  function handle(stage, pose, redraw) {
    const fingers = new Map();
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return { size: Math.hypot(a[0] - b[0], a[1] - b[1]), x: 0.5 * (a[0] + b[0]), y: 0.5 * (a[1] + b[1]) };
    };
    const zoom = (factor) => {
      pose.distance = Math.max(0.7, Math.min(12, pose.distance * factor));
    };
    const move = (dx, dy) => {
      const size = (0.5 * pose.distance) / stage.clientHeight;
      pose.pan = [pose.pan[0] + dx * size, pose.pan[1] - dy * size];
    };
    const turn = (dx, dy) => {
      pose.yaw += 0.008 * dx;
      pose.tip = Math.max(0, Math.min(1.55, pose.tip - 0.008 * dy));
    };
    stage.addEventListener("pointerdown", (event) => {
      stage.focus({ preventScroll: true });
      stage.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      event.preventDefault();
    });
    stage.addEventListener("pointermove", (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const before = fingers.size === 2 ? spread() : null;
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
      if (before) {
        const after = spread();
        zoom(before.size / Math.max(after.size, 1));
        move(after.x - before.x, after.y - before.y);
      } else if (event.shiftKey || event.buttons === 2) move(dx, dy);
      else turn(dx, dy);
      redraw();
    });
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (e) => fingers.delete(e.pointerId));
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    // Without the focus the wheel scrolls the page.
    stage.addEventListener("wheel", (event) => {
      if (document.activeElement !== stage && !event.ctrlKey) return;
      event.preventDefault();
      zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.004));
      redraw();
    }, { passive: false });
    const keys = { ArrowLeft: () => turn(-12, 0), ArrowRight: () => turn(12, 0), ArrowUp: () => turn(0, -12),
                   ArrowDown: () => turn(0, 12), "+": () => zoom(0.9), "-": () => zoom(1 / 0.9) };
    stage.addEventListener("keydown", (event) => {
      if (!keys[event.key]) return;
      keys[event.key]();
      event.preventDefault();
      redraw();
    });
  }

  function controls(root, pose, first, redraw) {
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    const slider = find("factor"), told = find("factor-text");
    const tell = () => {
      const true_scale = Math.abs(pose.factor - 1) < 1e-6 ? " (true to scale)" : "";
      told.textContent = "\u00d7 " + tools.digits(pose.factor, 2) + true_scale;
    };
    const back = (pair) => {
      Object.assign(pose, { ...first, pan: [0, 0], byGrey: pose.byGrey }, pair);
      slider.value = Math.log2(pose.factor);
      tell();
      redraw();
    };
    slider.addEventListener("input", () => {
      pose.factor = Math.pow(2, Number(slider.value));
      tell();
      redraw();
    });
    find("reset").addEventListener("click", () => back({}));
    find("above").addEventListener("click", () => back({ yaw: 0, tip: 0, factor: pose.factor }));
    find("stage").addEventListener("dblclick", () => back({}));
    for (const choice of root.querySelectorAll('input[type="radio"]')) {
      choice.addEventListener("change", () => {
        pose.byGrey = choice.value === "grey";
        redraw();
      });
    }
    tell();
  }

  // From where the whole block is in view, whichever way it is turned.
  function distance(shape, factor) {
    const longer = Math.max(shape.columns, shape.rows);
    const sides = [shape.columns / longer, shape.rows / longer, (factor * shape.relief_nm) / shape.side_nm];
    return (0.5 * Math.hypot(...sides)) / Math.sin(tools.view.HALF_ANGLE);
  }

  function start(root, data) {
    const find = (name) => root.querySelector(`[data-part="${name}"]`);
    const shape = tools.mesh.build(data), surface = find("picture"), over = find("labels");
    const factor = data.exaggeration, first = { ...FIRST, factor, distance: distance(shape, factor), byGrey: false };
    const pose = { ...first, pan: [0, 0] };
    root.classList.add("live");
    let drawScene = null;
    try {
      drawScene = tools.view.scene(surface, shape, data.colours);
    } catch (error) {
      find("why").textContent = String(error);
    }
    if (!drawScene) {
      root.classList.remove("live");
      return null;
    }
    const draw = () => {
      tools.fit(surface);
      drawScene(pose);
      writeLabels(over, shape, pose, data);
    };
    const redraw = tools.onceAFrame(draw);
    handle(find("stage"), pose, redraw);
    controls(root, pose, first, redraw);
    tools.onResize(find("stage"), redraw);
    surface.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      root.classList.remove("live");
    });
    draw();
    return { pose, draw, shape, canvas: surface };
  }

  tools.startRelief = start;
})();
