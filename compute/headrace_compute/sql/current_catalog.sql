-- Which rows of the items table are in force: per item the last by (ingested_at, upload_id, row_number), whole.
--
-- Input:  items(position, item_id, ingested_at, upload_id, row_number); position numbers the rows
-- Output: position
-- Grain:  item, in the order of item_id
SELECT max_by(position, {'at': ingested_at, 'upload': upload_id, 'row': row_number}) AS position
FROM items
GROUP BY item_id
ORDER BY item_id
