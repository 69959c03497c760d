-- The shards' partial aggregates added up, beside the catalog. Items of either appear.
--
-- Input:  partials (item_partials.sql, of all shards, with item_id and bucket); catalog (current_catalog.sql)
-- Output: the columns of ITEM_SCHEMA, microseconds for times, then in_catalog
-- Grain:  item, in the order of bucket, item_id
WITH totals AS (
    SELECT
        item_id,
        any_value(bucket) AS bucket,
        sum(total_interactions)::BIGINT AS total_interactions,
        sum(unique_users)::BIGINT AS unique_users,
        sum(rating_sum)::HUGEINT::DOUBLE / 1099511627776 / nullif(sum(ratings), 0)::BIGINT AS avg_rating,
        sum(num_views)::BIGINT AS num_views,
        sum(num_clicks)::BIGINT AS num_clicks,
        sum(num_purchases)::BIGINT AS num_purchases,
        sum(num_likes)::BIGINT AS num_likes,
        sum(num_add_to_carts)::BIGINT AS num_add_to_carts,
        sum(engagement_sum)::HUGEINT::DOUBLE / 1099511627776 AS engagement_score,
        min(first_us) AS first_us,
        max(last_us) AS last_us
    FROM partials
    GROUP BY item_id
)

SELECT
    item_id,
    coalesce(totals.total_interactions, 0) AS total_interactions,
    coalesce(totals.unique_users, 0) AS unique_users,
    totals.avg_rating,
    coalesce(totals.num_views, 0) AS num_views,
    coalesce(totals.num_clicks, 0) AS num_clicks,
    coalesce(totals.num_purchases, 0) AS num_purchases,
    coalesce(totals.num_likes, 0) AS num_likes,
    coalesce(totals.num_add_to_carts, 0) AS num_add_to_carts,
    coalesce(ln(1 + totals.total_interactions) / ln(1 + max(totals.total_interactions) OVER ()), 0) AS popularity_score,
    coalesce(totals.engagement_score, 0) AS engagement_score,
    totals.num_purchases / nullif(totals.num_views, 0) AS purchase_rate,
    totals.num_clicks / nullif(totals.num_views, 0) AS click_through_rate,
    totals.first_us AS first_interaction,
    totals.last_us AS last_interaction,
    catalog.title,
    catalog.category,
    catalog.price,
    catalog.brand,
    coalesce(totals.bucket, catalog.bucket) AS bucket,
    catalog.item_id IS NOT NULL AS in_catalog
FROM totals
FULL JOIN catalog USING (item_id)
ORDER BY bucket, item_id
