/**
 * Merge the ingredients of several recipes into one shopping list.
 *
 * Amounts of the same thing are added when their units are compatible, what is
 * already in the pantry is subtracted, and the rest is sorted by shop aisle so
 * that nobody has to walk back for the lemons.
 *
 * Run with: node shopping_list.js
 */

"use strict";

// Each unit is expressed in a base unit: grams, millilitres or pieces.
const UNITS = {
  g: { base: "g", factor: 1 },
  kg: { base: "g", factor: 1000 },
  ml: { base: "ml", factor: 1 },
  l: { base: "ml", factor: 1000 },
  tbsp: { base: "ml", factor: 15 },
  tsp: { base: "ml", factor: 5 },
  pcs: { base: "pcs", factor: 1 },
};

const AISLES = {
  "Fruit and vegetables": ["onion", "carrot", "lemon", "spinach", "garlic"],
  "Dairy and eggs": ["milk", "butter", "egg", "yogurt"],
  "Dry goods": ["flour", "rice", "red lentils", "sugar"],
  "Oils and spices": ["olive oil", "cumin", "salt"],
};

/** Convert an amount to its base unit. */
function toBase({ name, amount, unit }) {
  const known = UNITS[unit];
  if (!known) throw new Error(`Unknown unit "${unit}" for ${name}`);
  return { name, amount: amount * known.factor, unit: known.base };
}

/** Add items to a Map keyed by name and base unit; sign -1 subtracts. */
function accumulate(map, items, sign = 1) {
  for (const { name, amount, unit } of items.map(toBase)) {
    const key = `${name}|${unit}`;
    if (sign < 0 && !map.has(key)) continue;
    map.set(key, (map.get(key) ?? 0) + sign * amount);
  }
  return map;
}

/** Find the aisle of an ingredient, or "Other". */
function aisleOf(name) {
  const entry = Object.entries(AISLES).find(([, goods]) => goods.includes(name));
  return entry ? entry[0] : "Other";
}

/** Write 1500 g as 1.5 kg, and leave small amounts as they are. */
function pretty(amount, unit) {
  if (unit === "pcs") return `${Math.ceil(amount)} x`;
  const large = { g: "kg", ml: "l" }[unit];
  return amount >= 1000 ? `${+(amount / 1000).toFixed(2)} ${large}` : `${Math.round(amount)} ${unit}`;
}

/** Build the finished list as an object of aisle -> lines. */
function shoppingList(recipes, pantry = []) {
  const needed = accumulate(new Map(), recipes.flatMap((r) => r.ingredients));
  accumulate(needed, pantry, -1);
  const list = {};
  for (const [key, amount] of [...needed].sort()) {
    if (amount <= 0) continue;
    const [name, unit] = key.split("|");
    (list[aisleOf(name)] ??= []).push(`${pretty(amount, unit)} ${name}`);
  }
  return list;
}

const recipes = [
  { title: "Lentil soup", ingredients: [
    { name: "red lentils", amount: 250, unit: "g" }, { name: "onion", amount: 2, unit: "pcs" },
    { name: "olive oil", amount: 2, unit: "tbsp" }, { name: "lemon", amount: 1, unit: "pcs" } ] },
  { title: "Spinach pilaf", ingredients: [
    { name: "rice", amount: 1.2, unit: "kg" }, { name: "onion", amount: 1, unit: "pcs" },
    { name: "spinach", amount: 400, unit: "g" }, { name: "olive oil", amount: 50, unit: "ml" } ] },
];
const pantry = [{ name: "rice", amount: 100, unit: "g" }, { name: "lemon", amount: 1, unit: "pcs" }];

for (const [aisle, lines] of Object.entries(shoppingList(recipes, pantry))) {
  console.log(aisle);
  lines.forEach((line) => console.log(`  [ ] ${line}`));
}

module.exports = { shoppingList };
