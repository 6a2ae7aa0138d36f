-- Questions to drift-events in Flink SQL. `make sql` runs this file, as it is but for the broker's address, on Apache Flink 2.2 against a real Kafka.
--
-- Every reader has to read committed: what an aborted transaction wrote is in the topic too.

-- The columns that the questions need; others of the event are ignored, and so are kinds of events that come later.
CREATE TABLE drift_events (
  event_id STRING,
  kind STRING,
  monitor STRING,
  `scope` STRING,
  `partition` INT,
  segment STRING,
  feature STRING,
  psi DOUBLE,
  p_value DOUBLE,
  psi_null_mean DOUBLE,
  status STRING,
  previous_status STRING,
  record_count BIGINT,
  window_count BIGINT,
  missing_count BIGINT,
  top_bin STRING,
  top_bin_contribution DOUBLE,
  reference_version STRING,
  -- When the event was written; event time is in window_start_ms and window_end_ms.
  written TIMESTAMP_LTZ(3) METADATA FROM 'timestamp',
  WATERMARK FOR written AS written - INTERVAL '5' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = 'drift-events',
  'properties.bootstrap.servers' = 'localhost:9092',
  'properties.group.id' = 'flink-sql',
  'properties.isolation.level' = 'read_committed',
  'scan.startup.mode' = 'earliest-offset',
  -- To where the topic ends now: each question below is answered, and over. Without this line they go on for ever, with each event.
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true'
);

-- The worst features of the last hour: the highest PSI that any check found, by how much beyond chance, and in how many checks of how many.
-- @worst
SELECT monitor, `scope`, feature,
       ROUND(MAX(psi), 3) AS psi_max,
       ROUND(MAX(psi / psi_null_mean), 1) AS times_the_noise,
       SUM(CASE WHEN status = 'drift' THEN 1 ELSE 0 END) AS checks_in_drift,
       COUNT(*) AS checks
FROM drift_events
WHERE kind = 'drift' AND feature <> '*' AND written > CURRENT_TIMESTAMP - INTERVAL '1' HOUR
GROUP BY monitor, `scope`, feature
ORDER BY psi_max DESC
LIMIT 10;

-- Partitions that disagree: the latest check of a feature in each partition, where the highest PSI and the lowest are far apart. One producer of several
-- that sends something else looks like this.
-- @disagree
WITH latest AS (
  SELECT monitor, segment, feature, `partition`, psi, status
  FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY monitor, segment, feature, `partition` ORDER BY record_count DESC) AS nth
    FROM drift_events
    WHERE kind = 'drift' AND `scope` = 'partition' AND feature <> '*'
  )
  WHERE nth = 1
)
SELECT monitor, segment, feature,
       ROUND(MAX(psi) - MIN(psi), 3) AS apart,
       ROUND(MIN(psi), 3) AS psi_min,
       ROUND(MAX(psi), 3) AS psi_max,
       COUNT(*) AS partitions,
       SUM(CASE WHEN status = 'drift' THEN 1 ELSE 0 END) AS in_drift
FROM latest
GROUP BY monitor, segment, feature
HAVING MAX(psi) - MIN(psi) > 0.1
ORDER BY apart DESC;

-- When a feature began to drift, and where it went on from: changes of status.
-- @changes
SELECT written, monitor, `scope`, `partition`, segment, feature, previous_status, status, ROUND(psi, 3) AS psi, top_bin
FROM drift_events
WHERE kind = 'drift' AND feature <> '*' AND previous_status IS NOT NULL AND status <> previous_status
ORDER BY written;

-- Checks and drifts by minute, in windows: what a stream without end would tell as each minute ends.
-- @minutes
SELECT window_start, monitor, COUNT(*) AS checks, SUM(CASE WHEN status = 'drift' THEN 1 ELSE 0 END) AS in_drift, ROUND(AVG(psi), 3) AS psi_mean
FROM TABLE(TUMBLE(TABLE drift_events, DESCRIPTOR(written), INTERVAL '1' MINUTE))
WHERE kind = 'drift' AND feature = '*'
GROUP BY window_start, window_end, monitor
ORDER BY window_start, monitor;

-- Read committed means each event once: this has no rows.
-- @twice
SELECT event_id, COUNT(*) AS times
FROM drift_events
WHERE kind = 'drift'
GROUP BY event_id
HAVING COUNT(*) > 1;
