// The numbers that a query compares with: found in its text, and replaced there.
const TOKEN = /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|<=|>=|!=|[=<>~(),]|[^\s"'<>=!~(),]+/g;
const SIGNS = { "<": "below", "<=": "at most", ">": "above", ">=": "at least", "=": "equal to", "!=": "not equal to" };
const NUMBER = /^[-+]?[0-9]+(\.[0-9]+)?$/;
// By the end of a field's name, as in what alerts say.
const UNITS = { c: "°C", pct: "%", w: "W", ms: "ms", s: "s", h: "an hour", drop: "points" };

export function unitOf(field) {
  return UNITS[field.slice(field.lastIndexOf("_") + 1)] ?? "";
}

// "not temp_c > 80" has one: {field: "temp_c", sign: "above", value: "80", not: true, from, to}.
export function thresholds(query) {
  const tokens = [...query.matchAll(TOKEN)];
  const found = [];
  for (let at = 0; at + 2 < tokens.length; at += 1) {
    const [field, sign, value] = tokens.slice(at, at + 3);
    if (!Object.hasOwn(SIGNS, sign[0]) || !NUMBER.test(value[0]) || !/^[a-z]/.test(field[0])) continue;
    found.push({ field: field[0], sign: SIGNS[sign[0]], value: value[0], not: tokens[at - 1]?.[0] === "not", from: value.index, to: value.index + value[0].length });
  }
  return found;
}

export function withThreshold(query, one, value) {
  return query.slice(0, one.from) + value + query.slice(one.to);
}
