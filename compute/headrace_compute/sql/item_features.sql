-- What each item has had done to it, beside the catalog. Items of either appear.
--
-- Input:  items(item_code, bucket), all there are; totals (item_totals.sql, of all shards);
--         catalog(item_code, title, category, price, brand)
-- Output: the columns of ITEM_SCHEMA, with codes for names and microseconds for times, then in_catalog
-- Grain:  item, in the order of bucket, item_code
SELECT
    item_code,
    coalesce(totals.total_interactions, 0) AS total_interactions,
    coalesce(totals.unique_users, 0) AS unique_users,
    totals.rating_sum::HUGEINT::DOUBLE / 1099511627776 / nullif(totals.ratings, 0) AS avg_rating,
    coalesce(totals.num_views, 0) AS num_views,
    coalesce(totals.num_clicks, 0) AS num_clicks,
    coalesce(totals.num_purchases, 0) AS num_purchases,
    coalesce(totals.num_likes, 0) AS num_likes,
    coalesce(totals.num_add_to_carts, 0) AS num_add_to_carts,
    coalesce(ln(1 + totals.total_interactions) / ln(1 + max(totals.total_interactions) OVER ()), 0) AS popularity_score,
    coalesce(totals.engagement_sum::HUGEINT::DOUBLE / 1099511627776, 0) AS engagement_score,
    totals.num_purchases / nullif(totals.num_views, 0) AS purchase_rate,
    totals.num_clicks / nullif(totals.num_views, 0) AS click_through_rate,
    totals.first_us AS first_interaction,
    totals.last_us AS last_interaction,
    catalog.title,
    catalog.category,
    catalog.price,
    catalog.brand,
    items.bucket,
    catalog.title IS NOT NULL AS in_catalog
FROM items
LEFT JOIN totals USING (item_code)
LEFT JOIN catalog USING (item_code)
ORDER BY bucket, item_code
