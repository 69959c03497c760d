-- Distinct (user, item) pairs with the time of their newest event.
--
-- Input:  events(user_code, item_code, time_us)
-- Output: pair     user_code * 2^32 + item_code; one key groups faster than two
--         last_us  newest event, microseconds since the epoch
-- Grain:  (user, item)
SELECT
    user_code::BIGINT * 4294967296 + item_code AS pair,
    max(time_us) AS last_us
FROM events
GROUP BY pair
