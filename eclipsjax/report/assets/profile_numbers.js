// The numbers of the profile tool, apart from everything that is drawn.
"use strict";

(() => {
  const tools = window.eclipsjax;
  const MARGIN = 0.05;

  // Bilinear samples about a pixel apart along a line [x0, y0, x1, y1] in pixels (centres at whole numbers).
  function profile(data, line) {
    const [x0, y0, x1, y1] = line, long = Math.hypot(x1 - x0, y1 - y0);
    const count = Math.max(2, Math.ceil(long) + 1);
    const along = (i) => i / (count - 1);
    const sample = (values) => {
      if (!values) return null;
      const out = new Float64Array(count);
      for (let i = 0; i < count; i++) {
        const t = along(i);
        out[i] = tools.bilinear(values, data.width, data.height, x0 + t * (x1 - x0), y0 + t * (y1 - y0));
      }
      return out;
    };
    const distance = Float64Array.from({ length: count }, (_, i) => along(i) * long * data.pixel_nm);
    return {
      distance_nm: distance, height_nm: sample(data.height_nm), std_nm: sample(data.std_nm),
      truth_nm: sample(data.truth_nm),
    };
  }

  function mean(values, keep) {
    let sum = 0, count = 0;
    values.forEach((v, i) => {
      if (keep(i)) [sum, count] = [sum + v, count + 1];
    });
    return count ? sum / count : NaN;
  }

  // Between the ends: length, height difference (end less start), angle; between the means of what lies left of the
  // first marker and right of the second (shares of the length): the step.
  function numbers(found, markers) {
    const { distance_nm, height_nm } = found, last = distance_nm.length - 1;
    const long = distance_nm[last], rise = height_nm[last] - height_nm[0];
    const [near, far] = [Math.min(...markers) * long, Math.max(...markers) * long];
    const step = (values) =>
      mean(values, (i) => distance_nm[i] >= far) - mean(values, (i) => distance_nm[i] <= near);
    return {
      length_nm: long, rise_nm: rise, angle_deg: (Math.atan2(rise, long) * 180) / Math.PI, step_nm: step(height_nm),
      true_step_nm: found.truth_nm ? step(found.truth_nm) : null,
    };
  }

  // Markers (shares of the length) around the clearest step: where splitting the heights in two explains most of them.
  function clearestStep(found) {
    const { height_nm } = found, count = height_nm.length, whole = height_nm.reduce((sum, v) => sum + v, 0);
    let left = 0, best = -1, split = 0.5;
    for (let i = 1; i < count; i++) {
      left += height_nm[i - 1];
      const gap = (whole - left) / (count - i) - left / i, explained = i * (count - i) * gap * gap;
      if (explained > best) [best, split] = [explained, (i - 0.5) / (count - 1)];
    }
    return [Math.max(0, split - MARGIN), Math.min(1, split + MARGIN)];
  }

  function csv(found) {
    const columns = [["distance_nm", found.distance_nm], ["height_nm", found.height_nm],
                     ["height_std_nm", found.std_nm || new Float64Array(found.distance_nm.length).fill(NaN)]];
    if (found.truth_nm) columns.push(["true_height_nm", found.truth_nm]);
    const rows = Array.from(found.distance_nm, (_, i) =>
      columns.map(([, v]) => (Number.isFinite(v[i]) ? String(Number(v[i].toPrecision(7))) : "")).join(","));
    return [columns.map(([name]) => name).join(","), ...rows].join("\n") + "\n";
  }

  Object.assign(tools, { profile, numbers, clearestStep, csv });
})();
