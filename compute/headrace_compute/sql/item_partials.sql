-- What the users of one shard did to each item before $as_of_us, in a form that adds up across shards:
-- a user is in one shard only, so distinct users add up, and sums are integers.
--
-- Input:  events(user_code, item_code, interaction_type, time_us, rating), duplicates gone; pairs (pairs.sql)
-- Output: the columns of PARTIAL_SCHEMA; *_sum in units of 2^-40
-- Grain:  item, in the order of item_code
WITH totals AS (
    SELECT
        item_code,
        count(*) AS total_interactions,
        coalesce(sum((rating * 1099511627776)::BIGINT), 0)::DECIMAL(38, 0) AS rating_sum,
        count(rating) AS ratings,
        count_if(interaction_type = 'view') AS num_views,
        count_if(interaction_type = 'click') AS num_clicks,
        count_if(interaction_type = 'purchase') AS num_purchases,
        count_if(interaction_type = 'like') AS num_likes,
        count_if(interaction_type = 'add_to_cart') AS num_add_to_carts,
        sum((
            CASE interaction_type
                WHEN 'view' THEN $view
                WHEN 'click' THEN $click
                WHEN 'like' THEN $like
                WHEN 'add_to_cart' THEN $add_to_cart
                WHEN 'purchase' THEN $purchase
                ELSE 0
            END * pow(2.0, (time_us - $as_of_us) / $half_life_us) * 1099511627776
        )::BIGINT)::DECIMAL(38, 0) AS engagement_sum,
        min(time_us) AS first_us,
        max(time_us) AS last_us
    FROM events
    GROUP BY item_code
),

audiences AS (
    SELECT (pair % 4294967296)::INTEGER AS item_code, count(*) AS unique_users
    FROM pairs
    GROUP BY 1
)

SELECT
    item_code,
    total_interactions,
    unique_users,
    rating_sum,
    ratings,
    num_views,
    num_clicks,
    num_purchases,
    num_likes,
    num_add_to_carts,
    engagement_sum,
    first_us,
    last_us
FROM totals
JOIN audiences USING (item_code)
ORDER BY item_code
