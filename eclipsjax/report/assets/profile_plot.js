// The plot below the map: heights along the line, the band of one standard deviation, the truth, two markers.
"use strict";

(() => {
  const tools = window.eclipsjax;
  const INK = "#1c2430", BAND = "rgba(0,114,178,0.22)", LINE = "#0b4f7d", TRUTH = "#d55e00", MARK = "#7a0177";
  const EDGE = { left: 62, right: 14, top: 26, bottom: 44 };

  function frame(canvas, found) {
    const scale = tools.fit(canvas);
    const [wide, high] = [canvas.width / scale, canvas.height / scale];
    const { height_nm, std_nm, truth_nm, distance_nm } = found;
    const shown = [...height_nm, ...(truth_nm || [])];
    if (std_nm) std_nm.forEach((s, i) => Number.isFinite(s) && shown.push(height_nm[i] - s, height_nm[i] + s));
    let [low, high_nm] = tools.range(shown);
    const room = 0.06 * (high_nm - low) || 0.5;
    [low, high_nm] = [low - room, high_nm + room];
    const long = distance_nm[distance_nm.length - 1] || 1;
    const inner = { wide: wide - EDGE.left - EDGE.right, high: high - EDGE.top - EDGE.bottom };
    return {
      scale, wide, high, low, top: high_nm, long, inner,
      x: (nm) => EDGE.left + (inner.wide * nm) / long,
      y: (nm) => EDGE.top + (inner.high * (high_nm - nm)) / (high_nm - low),
    };
  }

  function axes(paint, at) {
    const [unit, size] = at.long >= 2e3 ? ["\u00b5m", 1e3] : ["nm", 1];
    paint.font = "12px system-ui, sans-serif";
    paint.lineWidth = 1;
    paint.textBaseline = "middle";
    paint.textAlign = "right";
    const levels = tools.ticks(at.low, at.top, at.inner.high / 42), far = at.inner.wide / 75;
    for (const level of levels) {
      rule(paint, EDGE.left, at.y(level), at.wide - EDGE.right, at.y(level));
      paint.fillText(tools.digits(level, 4), EDGE.left - 7, at.y(level));
    }
    paint.textAlign = "center";
    for (const place of tools.ticks(0, at.long / size, far)) {
      rule(paint, at.x(place * size), EDGE.top, at.x(place * size), at.high - EDGE.bottom);
      paint.fillText(tools.digits(place, 4), at.x(place * size), at.high - EDGE.bottom + 13);
    }
    paint.fillText(`distance along the line from A to B (${unit})`, EDGE.left + 0.5 * at.inner.wide, at.high - 10);
    paint.save();
    paint.translate(13, EDGE.top + 0.5 * at.inner.high);
    paint.rotate(-Math.PI / 2);
    paint.fillText("height (nm)", 0, 0);
    paint.restore();
  }

  function rule(paint, x0, y0, x1, y1) {
    paint.strokeStyle = "#e2e5ea";
    paint.fillStyle = INK;
    paint.beginPath();
    paint.moveTo(x0, y0);
    paint.lineTo(x1, y1);
    paint.stroke();
  }

  function curve(paint, at, distance, values, colour, dashes) {
    paint.strokeStyle = colour;
    paint.lineWidth = 1.8;
    paint.setLineDash(dashes);
    paint.beginPath();
    values.forEach((v, i) => paint[i ? "lineTo" : "moveTo"](at.x(distance[i]), at.y(v)));
    paint.stroke();
    paint.setLineDash([]);
  }

  // Piece by piece, so that pixels without a standard deviation leave a gap.
  function band(paint, at, found) {
    paint.fillStyle = BAND;
    const { distance_nm: x, height_nm: z, std_nm: s } = found;
    for (let i = 0; i + 1 < x.length; i++) {
      if (!Number.isFinite(s[i]) || !Number.isFinite(s[i + 1])) continue;
      const [a, b] = [at.x(x[i]), at.x(x[i + 1])];
      paint.beginPath();
      paint.moveTo(a, at.y(z[i] + s[i]));
      paint.lineTo(b, at.y(z[i + 1] + s[i + 1]));
      paint.lineTo(b, at.y(z[i + 1] - s[i + 1]));
      paint.lineTo(a, at.y(z[i] - s[i]));
      paint.fill();
    }
  }

  function markerLines(paint, at, markers) {
    markers.forEach((share) => {
      const x = at.x(share * at.long);
      paint.strokeStyle = paint.fillStyle = MARK;
      paint.lineWidth = 1.5;
      paint.beginPath();
      paint.moveTo(x, EDGE.top);
      paint.lineTo(x, at.high - EDGE.bottom);
      paint.stroke();
      paint.fillRect(x - 6, EDGE.top - 14, 12, 14);
    });
    const [near, far] = [Math.min(...markers), Math.max(...markers)].map((m) => at.x(m * at.long));
    paint.fillStyle = "rgba(122,1,119,0.06)";
    paint.fillRect(EDGE.left, EDGE.top, near - EDGE.left, at.inner.high);
    paint.fillRect(far, EDGE.top, at.wide - EDGE.right - far, at.inner.high);
  }

  function plot(canvas, found, markers) {
    const at = frame(canvas, found), paint = canvas.getContext("2d");
    paint.setTransform(at.scale, 0, 0, at.scale, 0, 0);
    paint.fillStyle = "#fff";
    paint.fillRect(0, 0, at.wide, at.high);
    axes(paint, at);
    markerLines(paint, at, markers);
    if (found.std_nm) band(paint, at, found);
    if (found.truth_nm) curve(paint, at, found.distance_nm, found.truth_nm, TRUTH, [6, 4]);
    curve(paint, at, found.distance_nm, found.height_nm, LINE, []);
    paint.strokeStyle = INK;
    paint.lineWidth = 1;
    paint.strokeRect(EDGE.left, EDGE.top, at.inner.wide, at.inner.high);
    return at;
  }

  // Share of the line's length at a place on the screen.
  function shareAt(canvas, x) {
    return Math.max(0, Math.min(1, (x - EDGE.left) / (canvas.clientWidth - EDGE.left - EDGE.right)));
  }

  Object.assign(tools, { plot, shareAt });
})();
