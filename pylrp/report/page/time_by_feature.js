// A signal of many features: its relevance as a map, time to the right and the first feature uppermost.

/** Returns {node, show(explanation, settings)}; `where` names a position of the signal, which has `length` of them. */
function timeByFeature(input, index, length, where) {
  const { count, names, block } = input.rows;
  const canvas = h('canvas', { tabindex: '0', role: 'img', class: 'signal by-feature' });
  const readout = h('p', { class: 'readout', 'aria-live': 'polite' });
  const bar = h('div');
  const node = h('div', {}, h('p', { class: 'readout' },
    `Above, all ${count} features together; below, each for itself, the first uppermost.`), canvas, bar, readout);
  const idle = 'Point at the map, or use the arrow keys on it, to read single features.';
  let map = null, at = null, limit = 1;

  const range = (name, first, last) => (first === last ? name(first) : `${name(first)} to ${name(last)}`);
  const feature = (i) => (names ? names[i] : `feature ${i}`);

  function draw() {
    const ratio = window.devicePixelRatio || 1, [rows, columns] = map.shape;
    const width = Math.max(300, canvas.clientWidth || 700), height = Math.min(420, Math.max(140, 8 * rows));
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext('2d');
    context.scale(ratio, ratio);
    const across = (j) => Math.min(j * block, length) / length * width, down = (i) => i / rows * height;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        context.fillStyle = css(colourOf(map.values[i * columns + j], limit));
        context.fillRect(across(j), down(i), across(j + 1) - across(j) + 0.6, height / rows + 0.6);
      }
    }
    if (at !== null) {
      context.strokeStyle = '#16202b';
      context.strokeRect(across(at[1]), down(at[0]), Math.max(3, across(at[1] + 1) - across(at[1])), Math.max(3, height / rows));
    }
    readout.textContent = at === null ? idle : `At ${range(where, at[1] * block, Math.min(length, (at[1] + 1) * block) - 1)}, `
      + `${range(feature, at[0] * block, Math.min(count, (at[0] + 1) * block) - 1)}: relevance ${signed(map.values[at[0] * columns + at[1]])}.`;
  }
  const within = (value, size) => Math.max(0, Math.min(size - 1, value));
  canvas.addEventListener('pointermove', (event) => {
    const box = canvas.getBoundingClientRect(), [rows, columns] = map.shape;
    const place = (event.clientX - box.left) / box.width * length;
    at = [within(Math.floor((event.clientY - box.top) / box.height * rows), rows), within(Math.floor(place / block), columns)];
    draw();
  });
  canvas.addEventListener('pointerleave', () => { at = null; draw(); });
  canvas.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    const [rows, columns] = map.shape, far = event.shiftKey ? 10 : 1, from = at ?? [rows >> 1, columns >> 1];
    at = [within(from[0] + step[0] * far, rows), within(from[1] + step[1] * far, columns)];
    event.preventDefault();
    draw();
  });
  window.addEventListener('resize', () => { if (canvas.isConnected) draw(); });

  return {
    node,
    show(explanation, settings) {
      map = unpack(explanation.maps[index].by_row);
      limit = limitOf(magnitudes(map.values), settings.clip);
      canvas.setAttribute('aria-label', `Relevance by time and feature. ${explanation.where[index].join('')}`);
      bar.replaceChildren(colourBar(limit));
      draw();
    },
  };
}
