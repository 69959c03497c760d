-- Partial aggregates of some shards added up.
--
-- Input:  partials (item_partials.sql, of these shards, or item_totals.sql)
-- Output: the columns of PARTIAL_SCHEMA
-- Grain:  item, in the order of item_code
SELECT
    item_code,
    sum(total_interactions)::BIGINT AS total_interactions,
    sum(unique_users)::BIGINT AS unique_users,
    sum(rating_sum)::DECIMAL(38, 0) AS rating_sum,
    sum(ratings)::BIGINT AS ratings,
    sum(num_views)::BIGINT AS num_views,
    sum(num_clicks)::BIGINT AS num_clicks,
    sum(num_purchases)::BIGINT AS num_purchases,
    sum(num_likes)::BIGINT AS num_likes,
    sum(num_add_to_carts)::BIGINT AS num_add_to_carts,
    sum(engagement_sum)::DECIMAL(38, 0) AS engagement_sum,
    min(first_us) AS first_us,
    max(last_us) AS last_us
FROM partials
GROUP BY item_code
ORDER BY item_code
