-- table attribute_values
CREATE TABLE attribute_values (
    chart_id BIGINT NOT NULL,
    "key" VARCHAR(128) NOT NULL,
    value BIGINT NOT NULL,
    CONSTRAINT pk_attribute_values PRIMARY KEY (chart_id, "key"),
    CONSTRAINT fk_attribute_values_chart_id_charts FOREIGN KEY(chart_id) REFERENCES charts (id)
);

-- table attributes
CREATE TABLE attributes (
    id INTEGER NOT NULL,
    state_id BIGINT NOT NULL,
    position INTEGER NOT NULL,
    "key" VARCHAR(128) NOT NULL,
    value BIGINT NOT NULL,
    CONSTRAINT pk_attributes PRIMARY KEY (id),
    CONSTRAINT fk_attributes_state_id_states FOREIGN KEY(state_id) REFERENCES states (id),
    CONSTRAINT uq_attributes_state_id_key UNIQUE (state_id, "key")
);

-- table calendar_versions
CREATE TABLE calendar_versions (
    id INTEGER NOT NULL,
    calendar VARCHAR(128) NOT NULL,
    version INTEGER NOT NULL,
    text TEXT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    events INTEGER NOT NULL,
    imported_at VARCHAR(27) NOT NULL,
    imported_by VARCHAR(255),
    CONSTRAINT pk_calendar_versions PRIMARY KEY (id),
    CONSTRAINT uq_calendar_versions_calendar_version UNIQUE (calendar, version)
);

-- table chart_versions
CREATE TABLE chart_versions (
    id INTEGER NOT NULL,
    chart_id BIGINT NOT NULL,
    version INTEGER NOT NULL,
    text TEXT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    description TEXT NOT NULL,
    initial_state VARCHAR(128) NOT NULL,
    expect BIGINT,
    has_roster BOOLEAN NOT NULL,
    require_machine BOOLEAN NOT NULL,
    imported_at VARCHAR(27) NOT NULL,
    imported_by VARCHAR(255), schedule TEXT, promises TEXT, follows TEXT,
    CONSTRAINT pk_chart_versions PRIMARY KEY (id),
    CONSTRAINT fk_chart_versions_chart_id_charts FOREIGN KEY(chart_id) REFERENCES charts (id),
    CONSTRAINT uq_chart_versions_chart_id_version UNIQUE (chart_id, version)
);

-- table charts
CREATE TABLE charts (
    id INTEGER NOT NULL,
    name VARCHAR(128) NOT NULL,
    version INTEGER NOT NULL,
    run INTEGER NOT NULL,
    visit INTEGER NOT NULL,
    state VARCHAR(128) NOT NULL,
    entered_at VARCHAR(27) NOT NULL,
    paused_at VARCHAR(27),
    paused_by VARCHAR(255),
    pause_reason TEXT,
    paused_for BIGINT DEFAULT 0 NOT NULL,
    due_at VARCHAR(27),
    fence BIGINT DEFAULT 0 NOT NULL,
    seq BIGINT NOT NULL,
    last_hash VARCHAR(64) NOT NULL,
    created_at VARCHAR(27) NOT NULL,
    updated_at VARCHAR(27) NOT NULL,
    archived_at VARCHAR(27), renamed TEXT, hours TEXT, expected BIGINT, rosters TEXT,
    CONSTRAINT pk_charts PRIMARY KEY (id),
    CONSTRAINT ck_charts_never_negative CHECK (paused_for >= 0 AND fence >= 0),
    CONSTRAINT ck_charts_counted_from_one CHECK (version >= 1 AND run >= 1 AND visit >= 1 AND seq >= 1),
    CONSTRAINT uq_charts_name UNIQUE (name)
);

-- table checkpoints
CREATE TABLE checkpoints (
    chart VARCHAR(128) NOT NULL,
    seq BIGINT NOT NULL,
    hash VARCHAR(64) NOT NULL,
    marker BLOB NOT NULL,
    CONSTRAINT pk_checkpoints PRIMARY KEY (chart, seq)
);

-- table deliveries
CREATE TABLE deliveries (
    id INTEGER NOT NULL,
    subscription_id BIGINT NOT NULL,
    webhook_id VARCHAR(200) NOT NULL,
    chart VARCHAR(128),
    seq BIGINT,
    kind VARCHAR(32) NOT NULL,
    at VARCHAR(27) NOT NULL,
    attempt INTEGER NOT NULL,
    status INTEGER,
    error TEXT,
    CONSTRAINT pk_deliveries PRIMARY KEY (id),
    CONSTRAINT fk_deliveries_subscription_id_subscriptions FOREIGN KEY(subscription_id) REFERENCES subscriptions (id)
);

-- table replayed_keys
CREATE TABLE replayed_keys (
    chart_id BIGINT NOT NULL,
    idempotency_key VARCHAR(255) NOT NULL,
    version INTEGER NOT NULL,
    state VARCHAR(128) NOT NULL,
    machine VARCHAR(255),
    "key" VARCHAR(128),
    seq BIGINT NOT NULL,
    CONSTRAINT pk_replayed_keys PRIMARY KEY (chart_id, idempotency_key),
    CONSTRAINT fk_replayed_keys_chart_id_charts FOREIGN KEY(chart_id) REFERENCES charts (id)
);

-- table reports
CREATE TABLE reports (
    chart_id BIGINT NOT NULL,
    run INTEGER NOT NULL,
    visit INTEGER NOT NULL,
    machine VARCHAR(255) NOT NULL,
    "key" VARCHAR(128),
    seq BIGINT NOT NULL,
    reported_at VARCHAR(27) NOT NULL, note TEXT,
    CONSTRAINT pk_reports PRIMARY KEY (chart_id, run, visit, machine),
    CONSTRAINT fk_reports_chart_id_charts FOREIGN KEY(chart_id) REFERENCES charts (id)
);

-- table roster
CREATE TABLE roster (
    version_id BIGINT NOT NULL,
    machine VARCHAR(255) NOT NULL,
    position INTEGER NOT NULL,
    CONSTRAINT pk_roster PRIMARY KEY (version_id, machine),
    CONSTRAINT fk_roster_version_id_chart_versions FOREIGN KEY(version_id) REFERENCES chart_versions (id)
);

-- table roster_machines
CREATE TABLE roster_machines (
    roster_id BIGINT NOT NULL,
    machine VARCHAR(255) NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER,
    labels TEXT NOT NULL,
    CONSTRAINT pk_roster_machines PRIMARY KEY (roster_id, machine, since),
    CONSTRAINT fk_roster_machines_roster_id_rosters FOREIGN KEY(roster_id) REFERENCES rosters (id)
);

-- table roster_versions
CREATE TABLE roster_versions (
    roster_id BIGINT NOT NULL,
    version INTEGER NOT NULL,
    machines INTEGER NOT NULL,
    added INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    imported_at VARCHAR(27) NOT NULL,
    imported_by VARCHAR(255),
    CONSTRAINT pk_roster_versions PRIMARY KEY (roster_id, version),
    CONSTRAINT fk_roster_versions_roster_id_rosters FOREIGN KEY(roster_id) REFERENCES rosters (id)
);

-- table rosters
CREATE TABLE rosters (
    id INTEGER NOT NULL,
    name VARCHAR(128) NOT NULL,
    version INTEGER NOT NULL,
    created_at VARCHAR(27) NOT NULL,
    CONSTRAINT pk_rosters PRIMARY KEY (id),
    CONSTRAINT uq_rosters_name UNIQUE (name)
);

-- table sessions
CREATE TABLE sessions (
    sha256 VARCHAR(64) NOT NULL,
    token_id BIGINT NOT NULL,
    created_at VARCHAR(27) NOT NULL,
    used_at VARCHAR(27) NOT NULL,
    CONSTRAINT pk_sessions PRIMARY KEY (sha256),
    CONSTRAINT fk_sessions_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (id)
);

-- table slots
CREATE TABLE slots (
    chart_id BIGINT NOT NULL,
    machine VARCHAR(255) NOT NULL,
    fence BIGINT NOT NULL,
    claimed_at VARCHAR(27) NOT NULL,
    renewed_at VARCHAR(27) NOT NULL,
    expires_at VARCHAR(27),
    expired_at VARCHAR(27),
    CONSTRAINT pk_slots PRIMARY KEY (chart_id, machine),
    CONSTRAINT fk_slots_chart_id_charts FOREIGN KEY(chart_id) REFERENCES charts (id)
);

-- table states
CREATE TABLE states (
    id INTEGER NOT NULL,
    version_id BIGINT NOT NULL,
    position INTEGER NOT NULL,
    name VARCHAR(128) NOT NULL,
    description TEXT NOT NULL,
    func VARCHAR(16),
    slots TEXT,
    lease VARCHAR(64),
    lease_us BIGINT,
    on_expire VARCHAR(8), reported TEXT, schedule TEXT, who VARCHAR(16), who_not VARCHAR(16), expect TEXT, including TEXT,
    CONSTRAINT pk_states PRIMARY KEY (id),
    CONSTRAINT ck_states_known_func CHECK (func IN ('increment', 'decrement', 'time')),
    CONSTRAINT ck_states_known_on_expire CHECK (on_expire IN ('hold', 'free', 'fail')),
    CONSTRAINT fk_states_version_id_chart_versions FOREIGN KEY(version_id) REFERENCES chart_versions (id),
    CONSTRAINT uq_states_version_id_name UNIQUE (version_id, name)
);

-- table subscription_cursors
CREATE TABLE subscription_cursors (
    subscription_id BIGINT NOT NULL,
    chart VARCHAR(128) NOT NULL,
    seq BIGINT NOT NULL,
    condition VARCHAR(16),
    attempts INTEGER DEFAULT 0 NOT NULL,
    next_at VARCHAR(27),
    claimed_by VARCHAR(64),
    claimed_until VARCHAR(27),
    CONSTRAINT pk_subscription_cursors PRIMARY KEY (subscription_id, chart),
    CONSTRAINT fk_subscription_cursors_subscription_id_subscriptions FOREIGN KEY(subscription_id) REFERENCES subscriptions (id)
);

-- table subscriptions
CREATE TABLE subscriptions (
    id INTEGER NOT NULL,
    name VARCHAR(128) NOT NULL,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    charts TEXT NOT NULL,
    kinds TEXT NOT NULL,
    format VARCHAR(8) NOT NULL,
    created_at VARCHAR(27) NOT NULL,
    created_by VARCHAR(255),
    updated_at VARCHAR(27) NOT NULL,
    CONSTRAINT pk_subscriptions PRIMARY KEY (id),
    CONSTRAINT ck_subscriptions_known_format CHECK (format IN ('event', 'text')),
    CONSTRAINT uq_subscriptions_name UNIQUE (name)
);

-- table token_log
CREATE TABLE token_log (
    id INTEGER NOT NULL,
    at VARCHAR(27) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    token VARCHAR(128) NOT NULL,
    role VARCHAR(16) NOT NULL,
    pattern VARCHAR(256) NOT NULL,
    machine VARCHAR(255),
    expires_at VARCHAR(27),
    actor VARCHAR(255),
    remote_addr VARCHAR(64),
    CONSTRAINT pk_token_log PRIMARY KEY (id)
);

-- table tokens
CREATE TABLE "tokens" (
    id INTEGER NOT NULL,
    name VARCHAR(128) NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL,
    pattern VARCHAR(256) NOT NULL,
    created_at VARCHAR(27) NOT NULL,
    created_by VARCHAR(255),
    revoked_at VARCHAR(27),
    machine VARCHAR(255),
    expires_at VARCHAR(27),
    last_used_at VARCHAR(27),
    CONSTRAINT pk_tokens PRIMARY KEY (id),
    CONSTRAINT ck_tokens_known_role CHECK (role IN ('reader', 'machine', 'operator', 'admin', 'enrol', 'approver')),
    CONSTRAINT uq_tokens_name UNIQUE (name),
    CONSTRAINT uq_tokens_sha256 UNIQUE (sha256)
);

-- table transition_log
CREATE TABLE transition_log (
    id INTEGER NOT NULL,
    chart VARCHAR(128) NOT NULL,
    version INTEGER NOT NULL,
    run INTEGER NOT NULL,
    visit INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    at VARCHAR(27) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    from_state VARCHAR(128) NOT NULL,
    to_state VARCHAR(128) NOT NULL,
    "key" VARCHAR(128),
    value_before BIGINT,
    value_after BIGINT,
    machine VARCHAR(255),
    actor VARCHAR(255),
    remote_addr VARCHAR(64),
    idempotency_key VARCHAR(255),
    reason TEXT,
    hash VARCHAR(64) NOT NULL, note TEXT,
    CONSTRAINT pk_transition_log PRIMARY KEY (id),
    CONSTRAINT uq_transition_log_chart_idempotency_key UNIQUE (chart, idempotency_key),
    CONSTRAINT uq_transition_log_chart_seq UNIQUE (chart, seq)
);

-- table transitions
CREATE TABLE transitions (
    id INTEGER NOT NULL,
    state_id BIGINT NOT NULL,
    position INTEGER NOT NULL,
    target VARCHAR(128) NOT NULL,
    "key" VARCHAR(128) NOT NULL,
    op VARCHAR(2),
    value VARCHAR(64) NOT NULL,
    threshold BIGINT,
    age BIGINT,
    instant VARCHAR(27), of_time VARCHAR(8),
    CONSTRAINT pk_transitions PRIMARY KEY (id),
    CONSTRAINT ck_transitions_one_meaning CHECK ((threshold IS NOT NULL AND op IS NOT NULL AND age IS NULL AND instant IS NULL) OR (key = 'elapsed' AND age IS NOT NULL AND threshold IS NULL AND instant IS NULL) OR (key = 'clock' AND instant IS NOT NULL AND threshold IS NULL AND age IS NULL)),
    CONSTRAINT ck_transitions_known_op CHECK (op IN ('==', '!=', '>=', '<=', '>', '<')),
    CONSTRAINT fk_transitions_state_id_states FOREIGN KEY(state_id) REFERENCES states (id),
    CONSTRAINT uq_transitions_state_id_position UNIQUE (state_id, position)
);

-- table visits
CREATE TABLE visits (
    chart_id BIGINT NOT NULL,
    run INTEGER NOT NULL,
    visit INTEGER NOT NULL,
    state VARCHAR(128) NOT NULL,
    entered_at VARCHAR(27) NOT NULL,
    left_at VARCHAR(27),
    CONSTRAINT pk_visits PRIMARY KEY (chart_id, run, visit),
    CONSTRAINT fk_visits_chart_id_charts FOREIGN KEY(chart_id) REFERENCES charts (id)
);

-- index ix_charts_due_at
CREATE INDEX ix_charts_due_at ON charts (due_at) WHERE due_at IS NOT NULL;

-- index ix_deliveries_subscription_id_id
CREATE INDEX ix_deliveries_subscription_id_id ON deliveries (subscription_id, id);

-- index ix_subscription_cursors_next_at
CREATE INDEX ix_subscription_cursors_next_at ON subscription_cursors (next_at) WHERE next_at IS NOT NULL;

-- index ix_transition_log_chart_seq_acts
CREATE INDEX ix_transition_log_chart_seq_acts ON transition_log (chart, seq) WHERE kind NOT IN ('update', 'claim', 'release');

-- index ix_visits_chart_id_run_state_visit
CREATE INDEX ix_visits_chart_id_run_state_visit ON visits (chart_id, run, state, visit);

-- trigger attributes_refuses_delete
CREATE TRIGGER attributes_refuses_delete BEFORE DELETE ON attributes BEGIN SELECT RAISE(ABORT, 'attributes is immutable: DELETE is refused'); END;

-- trigger attributes_refuses_update
CREATE TRIGGER attributes_refuses_update BEFORE UPDATE ON attributes BEGIN SELECT RAISE(ABORT, 'attributes is immutable: UPDATE is refused'); END;

-- trigger calendar_versions_refuses_delete
CREATE TRIGGER calendar_versions_refuses_delete BEFORE DELETE ON calendar_versions BEGIN SELECT RAISE(ABORT, 'calendar_versions is immutable: DELETE is refused'); END;

-- trigger calendar_versions_refuses_update
CREATE TRIGGER calendar_versions_refuses_update BEFORE UPDATE ON calendar_versions BEGIN SELECT RAISE(ABORT, 'calendar_versions is immutable: UPDATE is refused'); END;

-- trigger chart_versions_refuses_delete
CREATE TRIGGER chart_versions_refuses_delete BEFORE DELETE ON chart_versions BEGIN SELECT RAISE(ABORT, 'chart_versions is immutable: DELETE is refused'); END;

-- trigger chart_versions_refuses_update
CREATE TRIGGER chart_versions_refuses_update BEFORE UPDATE ON chart_versions BEGIN SELECT RAISE(ABORT, 'chart_versions is immutable: UPDATE is refused'); END;

-- trigger roster_refuses_delete
CREATE TRIGGER roster_refuses_delete BEFORE DELETE ON roster BEGIN SELECT RAISE(ABORT, 'roster is immutable: DELETE is refused'); END;

-- trigger roster_refuses_update
CREATE TRIGGER roster_refuses_update BEFORE UPDATE ON roster BEGIN SELECT RAISE(ABORT, 'roster is immutable: UPDATE is refused'); END;

-- trigger roster_versions_refuses_delete
CREATE TRIGGER roster_versions_refuses_delete BEFORE DELETE ON roster_versions BEGIN SELECT RAISE(ABORT, 'roster_versions is immutable: DELETE is refused'); END;

-- trigger roster_versions_refuses_update
CREATE TRIGGER roster_versions_refuses_update BEFORE UPDATE ON roster_versions BEGIN SELECT RAISE(ABORT, 'roster_versions is immutable: UPDATE is refused'); END;

-- trigger states_refuses_delete
CREATE TRIGGER states_refuses_delete BEFORE DELETE ON states BEGIN SELECT RAISE(ABORT, 'states is immutable: DELETE is refused'); END;

-- trigger states_refuses_update
CREATE TRIGGER states_refuses_update BEFORE UPDATE ON states BEGIN SELECT RAISE(ABORT, 'states is immutable: UPDATE is refused'); END;

-- trigger token_log_refuses_delete
CREATE TRIGGER token_log_refuses_delete BEFORE DELETE ON token_log BEGIN SELECT RAISE(ABORT, 'token_log is append-only: DELETE is refused'); END;

-- trigger token_log_refuses_update
CREATE TRIGGER token_log_refuses_update BEFORE UPDATE ON token_log BEGIN SELECT RAISE(ABORT, 'token_log is append-only: UPDATE is refused'); END;

-- trigger transition_log_checks_insert
CREATE TRIGGER transition_log_checks_insert BEFORE INSERT ON transition_log
BEGIN
    SELECT RAISE(ABORT, 'transition_log is append-only: seq must be the next one of its chart')
    WHERE NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM transition_log WHERE chart = NEW.chart);
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: transition_log.id (transition_log is append-only)')
    WHERE EXISTS (SELECT 1 FROM transition_log WHERE id = NEW.id);
    SELECT RAISE(ABORT, 'UNIQUE constraint failed: transition_log.idempotency_key (transition_log is append-only)')
    WHERE EXISTS (
        SELECT 1 FROM transition_log WHERE chart = NEW.chart AND idempotency_key = NEW.idempotency_key
    );
END;

-- trigger transition_log_refuses_delete
CREATE TRIGGER transition_log_refuses_delete BEFORE DELETE ON transition_log BEGIN SELECT RAISE(ABORT, 'transition_log is append-only: DELETE is refused'); END;

-- trigger transition_log_refuses_update
CREATE TRIGGER transition_log_refuses_update BEFORE UPDATE ON transition_log BEGIN SELECT RAISE(ABORT, 'transition_log is append-only: UPDATE is refused'); END;

-- trigger transitions_refuses_delete
CREATE TRIGGER transitions_refuses_delete BEFORE DELETE ON transitions BEGIN SELECT RAISE(ABORT, 'transitions is immutable: DELETE is refused'); END;

-- trigger transitions_refuses_update
CREATE TRIGGER transitions_refuses_update BEFORE UPDATE ON transitions BEGIN SELECT RAISE(ABORT, 'transitions is immutable: UPDATE is refused'); END;

-- view v_current
CREATE VIEW v_current AS
SELECT c.name AS chart, c.version, c.run, c.visit, c.state AS current_state,
    s.id IS NOT NULL AND s.func IS NULL AS is_final,
    c.entered_at, c.paused_at, c.paused_by, c.pause_reason,
    a.key, coalesce(av.value, a.value) AS value,
    (
        SELECT t.threshold FROM transitions t
        WHERE t.state_id = s.id AND t.key = a.key AND t.threshold IS NOT NULL
        ORDER BY t.position LIMIT 1
    ) AS needed,
    (
        SELECT count(*) FROM reports r WHERE r.chart_id = c.id AND r.run = c.run AND r.visit = c.visit
    ) AS reported,
    c.due_at, c.seq, c.updated_at
FROM charts c
LEFT JOIN chart_versions cv ON cv.chart_id = c.id AND cv.version = c.version
LEFT JOIN states s ON s.version_id = cv.id AND s.name = c.state
LEFT JOIN attributes a
    ON a.state_id = s.id AND a.position = (SELECT min(f.position) FROM attributes f WHERE f.state_id = s.id)
LEFT JOIN attribute_values av ON av.chart_id = c.id AND av.key = a.key
WHERE c.archived_at IS NULL;

-- view v_machine_reports
CREATE VIEW v_machine_reports AS
SELECT c.name AS chart, r.run, r.visit, v.state, r.machine, r.key, r.reported_at, r.seq, r.note
FROM reports r
JOIN charts c ON c.id = r.chart_id
LEFT JOIN visits v ON v.chart_id = r.chart_id AND v.run = r.run AND v.visit = r.visit;

-- view v_state_durations
CREATE VIEW v_state_durations AS
SELECT c.name AS chart, v.run, v.visit, v.state, v.entered_at, v.left_at,
    max(
        strftime('%s', substr(coalesce(v.left_at, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')), 1, 19)) - strftime('%s', substr(v.entered_at, 1, 19))
        + (substr(coalesce(v.left_at, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')), 21, 6) - substr(v.entered_at, 21, 6)) / 1000000.0,
        0
    ) AS seconds
FROM visits v
JOIN charts c ON c.id = v.chart_id;
