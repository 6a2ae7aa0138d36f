-- The same questions in ksqlDB. These statements were NOT run: ksqlDB is not to be had where this was written (it is not on Maven Central).
-- Its server has to read committed:  ksql.streams.consumer.isolation.level=read_committed
SET 'auto.offset.reset' = 'earliest';

CREATE STREAM drift_events (
  event_id VARCHAR, kind VARCHAR, monitor VARCHAR, scope VARCHAR, `partition` INT, segment VARCHAR, feature VARCHAR,
  psi DOUBLE, p_value DOUBLE, psi_null_mean DOUBLE, status VARCHAR, previous_status VARCHAR,
  record_count BIGINT, window_count BIGINT, top_bin VARCHAR
) WITH (KAFKA_TOPIC = 'drift-events', VALUE_FORMAT = 'JSON');

-- The worst features, hour by hour.
CREATE TABLE worst_features AS
  SELECT monitor, scope, feature, MAX(psi) AS psi_max, COUNT(*) AS checks
  FROM drift_events WINDOW TUMBLING (SIZE 1 HOUR)
  WHERE kind = 'drift' AND feature <> '*'
  GROUP BY monitor, scope, feature
  EMIT CHANGES;

-- Partitions that disagree, over the last checks of each minute.
CREATE TABLE partitions_apart AS
  SELECT monitor, feature, MAX(psi) - MIN(psi) AS apart, COUNT_DISTINCT(`partition`) AS partitions
  FROM drift_events WINDOW TUMBLING (SIZE 1 MINUTE)
  WHERE kind = 'drift' AND scope = 'partition' AND feature <> '*'
  GROUP BY monitor, feature
  HAVING MAX(psi) - MIN(psi) > 0.1
  EMIT CHANGES;

-- Changes of status, as they come.
SELECT monitor, scope, `partition`, segment, feature, previous_status, status, psi, top_bin
FROM drift_events
WHERE kind = 'drift' AND feature <> '*' AND previous_status IS NOT NULL AND status <> previous_status
EMIT CHANGES;
