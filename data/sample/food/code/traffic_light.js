/**
 * Colour the nutrients of a food in the manner of the UK traffic-light scheme.
 *
 * Thresholds are per 100 g for solids and per 100 ml for drinks. A large portion
 * can turn a nutrient red by itself: over 100 g for food, or 150 ml for drink,
 * the amount eaten in one portion is judged as well.
 *
 * Run with: node traffic_light.js
 */

"use strict";

// [highest green value, highest amber value]; anything above is red
const PER_100 = {
  food: { fat: [3, 17.5], saturates: [1.5, 5], sugars: [5, 22.5], salt: [0.3, 1.5] },
  drink: { fat: [1.5, 8.75], saturates: [0.75, 2.5], sugars: [2.5, 11.25], salt: [0.3, 0.75] },
};

const PER_PORTION = {
  food: { above: 100, limits: { fat: 21, saturates: 6, sugars: 27, salt: 1.8 } },
  drink: { above: 150, limits: { fat: 10.5, saturates: 3, sugars: 13.5, salt: 0.9 } },
};

const ANSI = { green: "\x1b[42m\x1b[30m", amber: "\x1b[43m\x1b[30m", red: "\x1b[41m\x1b[37m" };
const RESET = "\x1b[0m";

/** Return "green", "amber" or "red" for one nutrient of a product. */
function colourOf(nutrient, product) {
  const value = product.per100[nutrient];
  if (typeof value !== "number" || Number.isNaN(value) || value < 0) {
    throw new TypeError(`${product.name}: ${nutrient} must be a number of grams`);
  }
  const { above, limits } = PER_PORTION[product.kind];
  if (product.portion > above && (value * product.portion) / 100 > limits[nutrient]) {
    return "red";
  }
  const [low, high] = PER_100[product.kind][nutrient];
  if (value > high) return "red";
  return value > low ? "amber" : "green";
}

/** Map every nutrient to its colour. */
function lights(product) {
  if (!(product.kind in PER_100)) {
    throw new RangeError(`${product.name}: kind must be "food" or "drink"`);
  }
  const nutrients = Object.keys(PER_100[product.kind]);
  return Object.fromEntries(nutrients.map((n) => [n, colourOf(n, product)]));
}

/** Print one row, with colours when the terminal supports them. */
function row(product, colourful = process.stdout.isTTY) {
  const cells = Object.entries(lights(product)).map(([nutrient, colour]) => {
    const grams = ((product.per100[nutrient] * product.portion) / 100).toFixed(1);
    const text = ` ${nutrient} ${grams} g `;
    return colourful ? ANSI[colour] + text + RESET : `${text}(${colour})`;
  });
  return `${product.name.padEnd(24)}${cells.join(" ")}`;
}

const products = [
  { name: "Tomato soup", kind: "food", portion: 300,
    per100: { fat: 2.6, saturates: 0.7, sugars: 4.0, salt: 0.7 } },
  { name: "Mature Cheddar", kind: "food", portion: 30,
    per100: { fat: 34.8, saturates: 22, sugars: 0.1, salt: 1.8 } },
  { name: "Oat biscuits", kind: "food", portion: 30,
    per100: { fat: 19, saturates: 10, sugars: 25, salt: 0.72 } },
  { name: "Ginger beer", kind: "drink", portion: 275,
    per100: { fat: 0, saturates: 0, sugars: 8.0, salt: 0.01 } },
];

console.log("Grams are per portion; colours follow the rules per 100 g or ml and per portion.\n");
products.forEach((product) => console.log(row(product)));

module.exports = { lights };
