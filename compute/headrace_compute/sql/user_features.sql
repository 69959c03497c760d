-- What each user did before $as_of_us.
--
-- Input:  events(user_code, item_code, interaction_type, time_us, rating), duplicates gone; pairs (pairs.sql)
-- Output: the columns of USER_SCHEMA, with codes for names and microseconds for times
-- Grain:  user, in the order of user_code
WITH totals AS (
    SELECT
        user_code,
        count(*) AS total_interactions,
        -- Fixed point, units of 2^-40: exact, so no order of rows can change a bit.
        sum((rating * 1099511627776)::BIGINT) AS rating_sum,
        count(rating) AS ratings,
        min(time_us) AS first_us,
        max(time_us) AS last_us,
        count_if(interaction_type = 'view') AS num_views,
        count_if(interaction_type = 'click') AS num_clicks,
        count_if(interaction_type = 'purchase') AS num_purchases,
        count_if(interaction_type = 'like') AS num_likes,
        count_if(interaction_type = 'add_to_cart') AS num_add_to_carts
    FROM events
    GROUP BY user_code
),

days AS (
    SELECT user_code, count(*) AS days_active
    FROM (
        -- Counted from the year 0, as // rounds to zero: the days around 1970 would be one.
        SELECT DISTINCT user_code, (time_us + 62167219200000000) // 86400000000 AS day
        FROM events
    )
    GROUP BY user_code
),

recents AS (
    SELECT
        (pair // 4294967296)::INTEGER AS user_code,
        count(*) AS unique_items,
        -- Age and item in one number: sorted, it is newest first, then by item_id (codes have its order).
        list_transform(
            list_sort(list(($as_of_us - last_us)::HUGEINT * 4294967296 + pair % 4294967296))[:50],
            lambda recency: (recency & 4294967295)::INTEGER
        ) AS recent_items
    FROM pairs
    GROUP BY 1
)

SELECT
    user_code,
    total_interactions,
    unique_items,
    rating_sum::DOUBLE / 1099511627776 / nullif(ratings, 0) AS avg_rating,
    first_us AS first_interaction,
    last_us AS last_interaction,
    days_active,
    total_interactions / days_active AS interactions_per_day,
    num_views,
    num_clicks,
    num_purchases,
    num_likes,
    num_add_to_carts,
    num_purchases / nullif(num_views, 0) AS conversion_rate,
    recent_items,
    ($as_of_us - last_us) / 86400000000 AS days_since_last_interaction
FROM totals
JOIN days USING (user_code)
JOIN recents USING (user_code)
ORDER BY user_code
