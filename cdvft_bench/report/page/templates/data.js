"use strict";
// Data blocks of the page: base 64 of gzip of columns (see dataset.py), and how their values are written.
const ABSENT = "not measured";

const unpack = (id) => unpacked(document.getElementById(id).textContent);

async function unpacked(text) {
  const packed = atob(text.trim());
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const formats = new Map(); // one a number of decimals: making one costs more than using it a hundred times

function fixed(value, digits) {
  if (!formats.has(digits)) formats.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  return formats.get(digits).format(value);
}

function significant(value, digits = 4) {
  if (value === 0) return "0";
  const exponent = Math.floor(Math.log10(Math.abs(value)));
  if (exponent < -5 || exponent > 14) return value.toExponential(digits - 1);
  return fixed(value, Math.max(0, digits - 1 - exponent));
}

function prefixed(value) {
  for (const [size, prefix] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
    if (Math.abs(value) >= size) return `${significant(value / size)} ${prefix}`;
  }
  return Number.isInteger(value) ? grouped.format(value) : significant(value);
}

const ARRAYS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };

class Data {
  // A block, unpacked: a line of JSON, then the columns' values, which are used where they lie.
  constructor(buffer) {
    const end = new Uint8Array(buffer).indexOf(10) + 1;
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 0, end)));
    this.rows = head.rows;
    this.columns = head.columns;
    this.byName = new Map(this.columns.map((column) => [column.name, column]));
    for (const column of this.columns) column.values = new ARRAYS[column.type](buffer, end + column.at, this.rows);
  }

  has(name) {
    return this.byName.has(name);
  }

  // A text, a number, or null where nothing was measured.
  value(name, row) {
    const column = this.byName.get(name);
    if (!column) return null;
    const value = column.values[row];
    return column.words ? column.words[value] : Number.isNaN(value) ? null : value;
  }

  // The number that stands for a text in a column; undefined where it does not occur.
  place(name, word) {
    const column = this.byName.get(name);
    column.places ??= new Map(column.words.map((w, i) => [w, i]));
    return column.places.get(word);
  }

  words(name) {
    return this.byName.get(name)?.words ?? [];
  }

  label(name) {
    const column = this.byName.get(name);
    return column.unit ? `${column.title} [${column.unit}]` : column.title;
  }

  shown(name, row) {
    const column = this.byName.get(name), value = this.value(name, row);
    if (value === null) return ABSENT;
    if (column.words) return value;
    if (column.kind === "count") return grouped.format(value);
    if (column.kind === "bytes" || column.kind === "flops") return prefixed(value);
    if (column.kind !== "ratio") return significant(value);
    const low = this.value(`${name}_low`, row), high = this.value(`${name}_high`, row);
    return low === null || high === null ? value.toFixed(2) : `${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
  }

  // Rows in the order of a column; what was not measured stays last either way.
  sorted(rows, name, down) {
    const column = this.byName.get(name), values = column.values, sign = down ? -1 : 1;
    if (column.words && !column.ranks) {
      const order = [...column.words.keys()];
      const collator = new Intl.Collator("en", { numeric: true });
      order.sort((a, b) => collator.compare(column.words[a], column.words[b]));
      column.ranks = new Int32Array(order.length);
      order.forEach((word, rank) => (column.ranks[word] = rank));
    }
    const rank = column.words ? (row) => (column.words[values[row]] === ABSENT ? NaN : column.ranks[values[row]]) : (row) => values[row];
    return Int32Array.from(rows).sort((a, b) => {
      const x = rank(a), y = rank(b);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
      return sign * (x - y) || a - b;
    });
  }
}

// Text for a figure: plotly reads tags in labels, so what a record holds must not be one.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
