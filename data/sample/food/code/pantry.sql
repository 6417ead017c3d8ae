-- pantry.sql: what is in the cupboard, what must be eaten soon, what can be cooked.
-- Written for SQLite. Run with:  sqlite3 :memory: < pantry.sql

CREATE TABLE food (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    unit     TEXT NOT NULL CHECK (unit IN ('g', 'ml', 'pcs')),
    minimum  REAL NOT NULL DEFAULT 0          -- restock when less than this is left
);

-- The same food may be present several times with different dates.
CREATE TABLE stock (
    food_id    INTEGER NOT NULL REFERENCES food (id),
    amount     REAL NOT NULL CHECK (amount >= 0),
    use_before TEXT NOT NULL,                 -- ISO date
    place      TEXT NOT NULL DEFAULT 'cupboard'
);

CREATE TABLE recipe_item (
    recipe  TEXT NOT NULL,
    food_id INTEGER NOT NULL REFERENCES food (id),
    amount  REAL NOT NULL,
    PRIMARY KEY (recipe, food_id)
);

INSERT INTO food (id, name, unit, minimum) VALUES
    (1, 'eggs', 'pcs', 4),        (2, 'milk', 'ml', 500),
    (3, 'plain flour', 'g', 500), (4, 'spinach', 'g', 0),
    (5, 'feta', 'g', 0),          (6, 'chickpeas', 'g', 400),
    (7, 'tomatoes', 'g', 400);

INSERT INTO stock (food_id, amount, use_before, place) VALUES
    (1, 6,    date('now', '+9 days'),   'fridge'),
    (2, 300,  date('now', '+2 days'),   'fridge'),
    (3, 1400, date('now', '+200 days'), 'cupboard'),
    (4, 250,  date('now', '+1 day'),    'fridge'),
    (5, 200,  date('now', '+12 days'),  'fridge'),
    (6, 480,  date('now', '+500 days'), 'cupboard'),
    (7, 150,  date('now', '-1 day'),    'cupboard'),
    (7, 400,  date('now', '+300 days'), 'cupboard');

INSERT INTO recipe_item (recipe, food_id, amount) VALUES
    ('Pancakes', 1, 2), ('Pancakes', 2, 300), ('Pancakes', 3, 200),
    ('Spinach and feta omelette', 1, 4), ('Spinach and feta omelette', 4, 150),
    ('Spinach and feta omelette', 5, 80),
    ('Chickpea stew', 6, 480), ('Chickpea stew', 7, 500), ('Chickpea stew', 4, 100);

-- Only food that is still in date counts as available.
CREATE VIEW available AS
SELECT food.id, food.name, food.unit, food.minimum,
       COALESCE(SUM(stock.amount), 0) AS amount,
       MIN(stock.use_before)          AS first_date
FROM food
LEFT JOIN stock ON stock.food_id = food.id AND stock.use_before >= date('now')
GROUP BY food.id;

.headers on
.mode column

-- 1. Eat within three days.
SELECT name, amount, unit, place,
       CAST(julianday(use_before) - julianday(date('now')) AS INTEGER) AS days_left
FROM stock JOIN food ON food.id = stock.food_id
WHERE use_before BETWEEN date('now') AND date('now', '+3 days')
ORDER BY use_before, name;

-- 2. Below the minimum: buy the difference.
SELECT name, minimum - amount AS to_buy, unit
FROM available
WHERE amount < minimum
ORDER BY name;

-- 3. Recipes, those with nothing missing first, then those that save the most urgent food.
SELECT item.recipe,
       SUM(available.amount < item.amount) AS missing,
       MIN(available.first_date)           AS rescue_by,
       COALESCE(GROUP_CONCAT(CASE WHEN available.amount < item.amount
                             THEN available.name END, ', '), '-') AS buy
FROM recipe_item AS item JOIN available ON available.id = item.food_id
GROUP BY item.recipe
ORDER BY missing, rescue_by;
