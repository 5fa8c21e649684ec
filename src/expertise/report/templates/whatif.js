"use strict";
// Computes the fitted formulas for the inputs of the panel. A missing value is NaN, a level is its code.
for (const part of document.querySelectorAll('.live[data-live="whatif.js"]')) {
  const data = JSON.parse(part.querySelector('script[type="application/json"]').textContent);
  const formula = data.formula;
  const classes = formula.classes;
  const values = formula.columns.map(column => column.typical ?? NaN);

  // ---- the formulas

  function featureOf(feature, column, given) {
    let value = given;
    if (Number.isNaN(value) && column.kind === "category") value = column.missing_level ?? NaN;
    if (feature.kind === "missing") return Number.isNaN(given) ? 1 : 0;
    if (feature.kind === "level") return value === feature.level ? 1 : 0;
    if (Number.isNaN(value)) value = feature.fill;
    if (feature.kind === "value") return value;
    if (feature.kind === "year") return 1970 + value / 31556952;
    const turn = 2 * Math.PI * value / feature.period;
    return feature.phase === "sin" ? Math.sin(turn) : Math.cos(turn);
  }

  function linear(beta, z) { // intercept in the first row
    return beta[0].map((start, m) => z.reduce((sum, one, i) => sum + one * beta[i + 1][m], start));
  }

  function softmax(eta) {
    const top = Math.max(...eta);
    const powers = eta.map(one => Math.exp(one - top));
    const total = powers.reduce((sum, one) => sum + one, 0);
    return powers.map(one => one / total);
  }

  function gaussian(gate, z) {
    return softmax(gate.log_prior.map((prior, k) => {
      const off = z.map((one, i) => one - gate.means[k][i]);
      let distance = 0;
      off.forEach((a, i) => off.forEach((b, j) => { distance += a * gate.precisions[k][i][j] * b; }));
      return prior - (distance + gate.log_dets[k]) / 2;
    }));
  }

  function tree(gate, z) {
    const weights = new Array(gate.n_experts).fill(1);
    for (const node of gate.nodes) {
      softmax(linear(node.beta, z)).forEach((share, child) => {
        for (const expert of node.leaves[child]) weights[expert] *= share;
      });
    }
    return weights;
  }

  const gates = {
    softmax: (gate, z) => softmax(linear(gate.beta, z)),
    constant: gate => softmax(gate.log_prior),
    gaussian,
    tree,
  };

  function answerOf(expert, z) { // a list: one number, or a probability for each class
    if (expert.link === "constant") return [expert.values].flat();
    const eta = linear(expert.beta, z);
    if (expert.link === "softmax") return softmax(eta);
    if (expert.link === "exp") return eta.map(Math.exp);
    if (expert.link === "identity") return eta;
    const p = 1 / (1 + Math.exp(-eta[0]));
    return classes ? [1 - p, p] : [p];
  }

  function compute() {
    const x = formula.columns.flatMap((column, j) =>
      column.features.map(feature => featureOf(feature, column, values[j])));
    const gate = gates[formula.gate.kind](formula.gate, formula.gate_columns.map(i => x[i]));
    const z = formula.expert_columns.map(i => x[i]);
    const answers = formula.experts.map(expert => answerOf(expert, z));
    const mixture = answers[0].map((_, v) => gate.reduce((sum, weight, k) => sum + weight * answers[k][v], 0));
    return { gate, answers, mixture };
  }

  // ---- the page

  const text = number => {
    if (!Number.isFinite(number)) return "–";
    if (classes) return number.toFixed(3);
    return Math.abs(number) >= 1e4 ? Math.round(number).toLocaleString("en") : String(Number(number.toPrecision(4)));
  };

  function put(cell, number) {
    cell.dataset.value = number; // all digits, for those who want to copy them
    (cell.querySelector(".figure") ?? cell).textContent = text(number);
  }

  function sentence({ gate, mixture }) {
    const lead = gate.indexOf(Math.max(...gate));
    const who = `expert ${lead} has the largest weight, ${gate[lead].toFixed(2)}`;
    if (!classes) return `The mixture predicts ${text(mixture[0])} for ${data.target}: ${who}.`;
    const best = mixture.indexOf(Math.max(...mixture));
    return `The mixture predicts ${data.classes[best]}, with probability ${text(mixture[best])}: ${who}.`;
  }

  function answer() {
    const found = compute();
    found.gate.forEach((weight, k) => {
      const row = part.querySelector(`tr[data-expert="${k}"]`);
      row.cells[1].dataset.value = weight;
      row.cells[1].querySelector(".figure").textContent = weight.toFixed(3);
      row.cells[1].querySelector(".bar i").style.width = `${100 * weight}%`;
      found.answers[k].forEach((number, v) => put(row.cells[2 + v], number));
    });
    const row = part.querySelector('tr[data-expert="mixture"]');
    found.mixture.forEach((number, v) => put(row.cells[2 + v], number));
    part.querySelector(".said").textContent = sentence(found);
  }

  const day = 86400;

  function fill(field, except) { // show the value of a column in all its controls but the one being used
    const value = values[field.dataset.column];
    const missing = Number.isNaN(value);
    for (const control of field.querySelectorAll('[data-is="value"]')) {
      control.disabled = missing;
      if (control === except || missing) continue;
      if (control.type === "checkbox") control.checked = value !== 0;
      else if (control.type === "date") control.value = new Date(1000 * Math.floor(value / day) * day).toISOString().slice(0, 10);
      else control.value = String(Number(value.toPrecision(12)));
    }
    const box = field.querySelector('[data-is="missing"]');
    if (box) box.checked = missing;
    const column = formula.columns[field.dataset.column];
    const seen = field.querySelector('[data-is="seen"]');
    if (seen) seen.classList.toggle("outside", value < column.low || value > column.high);
  }

  function valueOf(control) { // null where the control says nothing yet
    if (control.type === "checkbox") return control.checked ? 1 : 0;
    if (control.value === "") return null;
    return control.type === "date" ? Date.parse(`${control.value}T00:00:00Z`) / 1000 : Number(control.value);
  }

  const fields = [...part.querySelectorAll("fieldset")];
  const start = part.querySelector('[data-is="start"]');
  const kept = []; // of a missing column: what it was before

  function begin() {
    data.starts[start.value].forEach((value, j) => { values[j] = value ?? NaN; });
    fields.forEach(field => fill(field));
    answer();
  }

  for (const field of fields) {
    const j = Number(field.dataset.column);
    field.addEventListener("input", event => {
      const control = event.target;
      if (control.dataset.is === "missing") {
        if (control.checked) kept[j] = values[j];
        values[j] = control.checked ? NaN : kept[j] ?? formula.columns[j].typical;
      } else {
        const value = valueOf(control);
        if (value === null || !Number.isFinite(value)) return;
        values[j] = value;
      }
      fill(field, control);
      answer();
    });
  }
  start.addEventListener("input", begin);
  part.querySelector("form").addEventListener("submit", event => event.preventDefault());
  start.value = 0;
  begin();
  part.querySelector(".whatif").hidden = false;
}
