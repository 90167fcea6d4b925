-- columns
attribute_values.chart_id bigint NOT NULL
attribute_values.key character varying(128) NOT NULL
attribute_values.value bigint NOT NULL
attributes.id bigint NOT NULL DEFAULT nextval('attributes_id_seq'::regclass)
attributes.state_id bigint NOT NULL
attributes.position integer NOT NULL
attributes.key character varying(128) NOT NULL
attributes.value bigint NOT NULL
calendar_versions.id bigint NOT NULL DEFAULT nextval('calendar_versions_id_seq'::regclass)
calendar_versions.calendar character varying(128) NOT NULL
calendar_versions.version integer NOT NULL
calendar_versions.text text NOT NULL
calendar_versions.sha256 character varying(64) NOT NULL
calendar_versions.events integer NOT NULL
calendar_versions.imported_at timestamp with time zone NOT NULL
calendar_versions.imported_by character varying(255)
chart_versions.id bigint NOT NULL DEFAULT nextval('chart_versions_id_seq'::regclass)
chart_versions.chart_id bigint NOT NULL
chart_versions.version integer NOT NULL
chart_versions.text text NOT NULL
chart_versions.sha256 character varying(64) NOT NULL
chart_versions.description text NOT NULL
chart_versions.initial_state character varying(128) NOT NULL
chart_versions.expect bigint
chart_versions.has_roster boolean NOT NULL
chart_versions.require_machine boolean NOT NULL
chart_versions.imported_at timestamp with time zone NOT NULL
chart_versions.imported_by character varying(255)
chart_versions.schedule text
chart_versions.promises text
chart_versions.follows text
charts.id bigint NOT NULL DEFAULT nextval('charts_id_seq'::regclass)
charts.name character varying(128) NOT NULL
charts.version integer NOT NULL
charts.run integer NOT NULL
charts.visit integer NOT NULL
charts.state character varying(128) NOT NULL
charts.entered_at timestamp with time zone NOT NULL
charts.paused_at timestamp with time zone
charts.paused_by character varying(255)
charts.pause_reason text
charts.paused_for bigint NOT NULL DEFAULT 0
charts.due_at timestamp with time zone
charts.fence bigint NOT NULL DEFAULT 0
charts.seq bigint NOT NULL
charts.last_hash character varying(64) NOT NULL
charts.created_at timestamp with time zone NOT NULL
charts.updated_at timestamp with time zone NOT NULL
charts.archived_at timestamp with time zone
charts.renamed text
charts.hours text
charts.expected bigint
charts.rosters text
checkpoints.chart character varying(128) NOT NULL
checkpoints.seq bigint NOT NULL
checkpoints.hash character varying(64) NOT NULL
checkpoints.marker bytea NOT NULL
deliveries.id bigint NOT NULL DEFAULT nextval('deliveries_id_seq'::regclass)
deliveries.subscription_id bigint NOT NULL
deliveries.webhook_id character varying(200) NOT NULL
deliveries.chart character varying(128)
deliveries.seq bigint
deliveries.kind character varying(32) NOT NULL
deliveries.at timestamp with time zone NOT NULL
deliveries.attempt integer NOT NULL
deliveries.status integer
deliveries.error text
replayed_keys.chart_id bigint NOT NULL
replayed_keys.idempotency_key character varying(255) NOT NULL
replayed_keys.version integer NOT NULL
replayed_keys.state character varying(128) NOT NULL
replayed_keys.machine character varying(255)
replayed_keys.key character varying(128)
replayed_keys.seq bigint NOT NULL
reports.chart_id bigint NOT NULL
reports.run integer NOT NULL
reports.visit integer NOT NULL
reports.machine character varying(255) NOT NULL
reports.key character varying(128)
reports.seq bigint NOT NULL
reports.reported_at timestamp with time zone NOT NULL
reports.note text
roster.version_id bigint NOT NULL
roster.machine character varying(255) NOT NULL
roster.position integer NOT NULL
roster_machines.roster_id bigint NOT NULL
roster_machines.machine character varying(255) NOT NULL
roster_machines.since integer NOT NULL
roster_machines.until integer
roster_machines.labels text NOT NULL
roster_versions.roster_id bigint NOT NULL
roster_versions.version integer NOT NULL
roster_versions.machines integer NOT NULL
roster_versions.added integer NOT NULL
roster_versions.removed integer NOT NULL
roster_versions.changed integer NOT NULL
roster_versions.sha256 character varying(64) NOT NULL
roster_versions.imported_at timestamp with time zone NOT NULL
roster_versions.imported_by character varying(255)
rosters.id bigint NOT NULL DEFAULT nextval('rosters_id_seq'::regclass)
rosters.name character varying(128) NOT NULL
rosters.version integer NOT NULL
rosters.created_at timestamp with time zone NOT NULL
sessions.sha256 character varying(64) NOT NULL
sessions.token_id bigint NOT NULL
sessions.created_at timestamp with time zone NOT NULL
sessions.used_at timestamp with time zone NOT NULL
slots.chart_id bigint NOT NULL
slots.machine character varying(255) NOT NULL
slots.fence bigint NOT NULL
slots.claimed_at timestamp with time zone NOT NULL
slots.renewed_at timestamp with time zone NOT NULL
slots.expires_at timestamp with time zone
slots.expired_at timestamp with time zone
states.id bigint NOT NULL DEFAULT nextval('states_id_seq'::regclass)
states.version_id bigint NOT NULL
states.position integer NOT NULL
states.name character varying(128) NOT NULL
states.description text NOT NULL
states.func character varying(16)
states.slots text
states.lease character varying(64)
states.lease_us bigint
states.on_expire character varying(8)
states.reported text
states.schedule text
states.who character varying(16)
states.who_not character varying(16)
states.expect text
states.including text
subscription_cursors.subscription_id bigint NOT NULL
subscription_cursors.chart character varying(128) NOT NULL
subscription_cursors.seq bigint NOT NULL
subscription_cursors.condition character varying(16)
subscription_cursors.attempts integer NOT NULL DEFAULT 0
subscription_cursors.next_at timestamp with time zone
subscription_cursors.claimed_by character varying(64)
subscription_cursors.claimed_until timestamp with time zone
subscriptions.id bigint NOT NULL DEFAULT nextval('subscriptions_id_seq'::regclass)
subscriptions.name character varying(128) NOT NULL
subscriptions.url text NOT NULL
subscriptions.secret text NOT NULL
subscriptions.charts text NOT NULL
subscriptions.kinds text NOT NULL
subscriptions.format character varying(8) NOT NULL
subscriptions.created_at timestamp with time zone NOT NULL
subscriptions.created_by character varying(255)
subscriptions.updated_at timestamp with time zone NOT NULL
token_log.id bigint NOT NULL DEFAULT nextval('token_log_id_seq'::regclass)
token_log.at timestamp with time zone NOT NULL
token_log.kind character varying(16) NOT NULL
token_log.token character varying(128) NOT NULL
token_log.role character varying(16) NOT NULL
token_log.pattern character varying(256) NOT NULL
token_log.machine character varying(255)
token_log.expires_at timestamp with time zone
token_log.actor character varying(255)
token_log.remote_addr character varying(64)
tokens.id bigint NOT NULL DEFAULT nextval('tokens_id_seq'::regclass)
tokens.name character varying(128) NOT NULL
tokens.sha256 character varying(64) NOT NULL
tokens.role character varying(16) NOT NULL
tokens.pattern character varying(256) NOT NULL
tokens.created_at timestamp with time zone NOT NULL
tokens.created_by character varying(255)
tokens.revoked_at timestamp with time zone
tokens.machine character varying(255)
tokens.expires_at timestamp with time zone
tokens.last_used_at timestamp with time zone
transition_log.id bigint NOT NULL DEFAULT nextval('transition_log_id_seq'::regclass)
transition_log.chart character varying(128) NOT NULL
transition_log.version integer NOT NULL
transition_log.run integer NOT NULL
transition_log.visit integer NOT NULL
transition_log.seq bigint NOT NULL
transition_log.at timestamp with time zone NOT NULL
transition_log.kind character varying(16) NOT NULL
transition_log.from_state character varying(128) NOT NULL
transition_log.to_state character varying(128) NOT NULL
transition_log.key character varying(128)
transition_log.value_before bigint
transition_log.value_after bigint
transition_log.machine character varying(255)
transition_log.actor character varying(255)
transition_log.remote_addr character varying(64)
transition_log.idempotency_key character varying(255)
transition_log.reason text
transition_log.hash character varying(64) NOT NULL
transition_log.note text
transitions.id bigint NOT NULL DEFAULT nextval('transitions_id_seq'::regclass)
transitions.state_id bigint NOT NULL
transitions.position integer NOT NULL
transitions.target character varying(128) NOT NULL
transitions.key character varying(128) NOT NULL
transitions.op character varying(2)
transitions.value character varying(64) NOT NULL
transitions.threshold bigint
transitions.age bigint
transitions.instant timestamp with time zone
transitions.of_time character varying(8)
v_current.chart character varying(128)
v_current.version integer
v_current.run integer
v_current.visit integer
v_current.current_state character varying(128)
v_current.is_final boolean
v_current.entered_at timestamp with time zone
v_current.paused_at timestamp with time zone
v_current.paused_by character varying(255)
v_current.pause_reason text
v_current.key character varying(128)
v_current.value bigint
v_current.needed bigint
v_current.reported bigint
v_current.due_at timestamp with time zone
v_current.seq bigint
v_current.updated_at timestamp with time zone
v_machine_reports.chart character varying(128)
v_machine_reports.run integer
v_machine_reports.visit integer
v_machine_reports.state character varying(128)
v_machine_reports.machine character varying(255)
v_machine_reports.key character varying(128)
v_machine_reports.reported_at timestamp with time zone
v_machine_reports.seq bigint
v_machine_reports.note text
v_state_durations.chart character varying(128)
v_state_durations.run integer
v_state_durations.visit integer
v_state_durations.state character varying(128)
v_state_durations.entered_at timestamp with time zone
v_state_durations.left_at timestamp with time zone
v_state_durations.seconds numeric
visits.chart_id bigint NOT NULL
visits.run integer NOT NULL
visits.visit integer NOT NULL
visits.state character varying(128) NOT NULL
visits.entered_at timestamp with time zone NOT NULL
visits.left_at timestamp with time zone

-- constraints
attribute_values.fk_attribute_values_chart_id_charts FOREIGN KEY (chart_id) REFERENCES charts(id)
attribute_values.pk_attribute_values PRIMARY KEY (chart_id, key)
attributes.fk_attributes_state_id_states FOREIGN KEY (state_id) REFERENCES states(id)
attributes.pk_attributes PRIMARY KEY (id)
attributes.uq_attributes_state_id_key UNIQUE (state_id, key)
calendar_versions.pk_calendar_versions PRIMARY KEY (id)
calendar_versions.uq_calendar_versions_calendar_version UNIQUE (calendar, version)
chart_versions.fk_chart_versions_chart_id_charts FOREIGN KEY (chart_id) REFERENCES charts(id)
chart_versions.pk_chart_versions PRIMARY KEY (id)
chart_versions.uq_chart_versions_chart_id_version UNIQUE (chart_id, version)
charts.ck_charts_counted_from_one CHECK (((version >= 1) AND (run >= 1) AND (visit >= 1) AND (seq >= 1)))
charts.ck_charts_never_negative CHECK (((paused_for >= 0) AND (fence >= 0)))
charts.pk_charts PRIMARY KEY (id)
charts.uq_charts_name UNIQUE (name)
checkpoints.pk_checkpoints PRIMARY KEY (chart, seq)
deliveries.fk_deliveries_subscription_id_subscriptions FOREIGN KEY (subscription_id) REFERENCES subscriptions(id)
deliveries.pk_deliveries PRIMARY KEY (id)
replayed_keys.fk_replayed_keys_chart_id_charts FOREIGN KEY (chart_id) REFERENCES charts(id)
replayed_keys.pk_replayed_keys PRIMARY KEY (chart_id, idempotency_key)
reports.fk_reports_chart_id_charts FOREIGN KEY (chart_id) REFERENCES charts(id)
reports.pk_reports PRIMARY KEY (chart_id, run, visit, machine)
roster.fk_roster_version_id_chart_versions FOREIGN KEY (version_id) REFERENCES chart_versions(id)
roster.pk_roster PRIMARY KEY (version_id, machine)
roster_machines.fk_roster_machines_roster_id_rosters FOREIGN KEY (roster_id) REFERENCES rosters(id)
roster_machines.pk_roster_machines PRIMARY KEY (roster_id, machine, since)
roster_versions.fk_roster_versions_roster_id_rosters FOREIGN KEY (roster_id) REFERENCES rosters(id)
roster_versions.pk_roster_versions PRIMARY KEY (roster_id, version)
rosters.pk_rosters PRIMARY KEY (id)
rosters.uq_rosters_name UNIQUE (name)
sessions.fk_sessions_token_id_tokens FOREIGN KEY (token_id) REFERENCES tokens(id)
sessions.pk_sessions PRIMARY KEY (sha256)
slots.fk_slots_chart_id_charts FOREIGN KEY (chart_id) REFERENCES charts(id)
slots.pk_slots PRIMARY KEY (chart_id, machine)
states.ck_states_known_func CHECK (((func)::text = ANY ((ARRAY['increment'::character varying, 'decrement'::character varying, 'time'::character varying])::text[])))
states.ck_states_known_on_expire CHECK (((on_expire)::text = ANY ((ARRAY['hold'::character varying, 'free'::character varying, 'fail'::character varying])::text[])))
states.fk_states_version_id_chart_versions FOREIGN KEY (version_id) REFERENCES chart_versions(id)
states.pk_states PRIMARY KEY (id)
states.uq_states_version_id_name UNIQUE (version_id, name)
subscription_cursors.fk_subscription_cursors_subscription_id_subscriptions FOREIGN KEY (subscription_id) REFERENCES subscriptions(id)
subscription_cursors.pk_subscription_cursors PRIMARY KEY (subscription_id, chart)
subscriptions.ck_subscriptions_known_format CHECK (((format)::text = ANY ((ARRAY['event'::character varying, 'text'::character varying])::text[])))
subscriptions.pk_subscriptions PRIMARY KEY (id)
subscriptions.uq_subscriptions_name UNIQUE (name)
token_log.pk_token_log PRIMARY KEY (id)
tokens.ck_tokens_known_role CHECK (((role)::text = ANY ((ARRAY['reader'::character varying, 'machine'::character varying, 'operator'::character varying, 'admin'::character varying, 'enrol'::character varying, 'approver'::character varying])::text[])))
tokens.pk_tokens PRIMARY KEY (id)
tokens.uq_tokens_name UNIQUE (name)
tokens.uq_tokens_sha256 UNIQUE (sha256)
transition_log.pk_transition_log PRIMARY KEY (id)
transition_log.uq_transition_log_chart_idempotency_key UNIQUE (chart, idempotency_key)
transition_log.uq_transition_log_chart_seq UNIQUE (chart, seq)
transitions.ck_transitions_known_op CHECK (((op)::text = ANY ((ARRAY['=='::character varying, '!='::character varying, '>='::character varying, '<='::character varying, '>'::character varying, '<'::character varying])::text[])))
transitions.ck_transitions_one_meaning CHECK ((((threshold IS NOT NULL) AND (op IS NOT NULL) AND (age IS NULL) AND (instant IS NULL)) OR (((key)::text = 'elapsed'::text) AND (age IS NOT NULL) AND (threshold IS NULL) AND (instant IS NULL)) OR (((key)::text = 'clock'::text) AND (instant IS NOT NULL) AND (threshold IS NULL) AND (age IS NULL))))
transitions.fk_transitions_state_id_states FOREIGN KEY (state_id) REFERENCES states(id)
transitions.pk_transitions PRIMARY KEY (id)
transitions.uq_transitions_state_id_position UNIQUE (state_id, "position")
visits.fk_visits_chart_id_charts FOREIGN KEY (chart_id) REFERENCES charts(id)
visits.pk_visits PRIMARY KEY (chart_id, run, visit)

-- indexes
CREATE INDEX ix_charts_due_at ON public.charts USING btree (due_at) WHERE (due_at IS NOT NULL)
CREATE INDEX ix_deliveries_subscription_id_id ON public.deliveries USING btree (subscription_id, id)
CREATE INDEX ix_subscription_cursors_next_at ON public.subscription_cursors USING btree (next_at) WHERE (next_at IS NOT NULL)
CREATE INDEX ix_transition_log_chart_seq_acts ON public.transition_log USING btree (chart, seq) WHERE ((kind)::text <> ALL ((ARRAY['update'::character varying, 'claim'::character varying, 'release'::character varying])::text[]))
CREATE INDEX ix_visits_chart_id_run_state_visit ON public.visits USING btree (chart_id, run, state, visit)
CREATE UNIQUE INDEX pk_attribute_values ON public.attribute_values USING btree (chart_id, key)
CREATE UNIQUE INDEX pk_attributes ON public.attributes USING btree (id)
CREATE UNIQUE INDEX pk_calendar_versions ON public.calendar_versions USING btree (id)
CREATE UNIQUE INDEX pk_chart_versions ON public.chart_versions USING btree (id)
CREATE UNIQUE INDEX pk_charts ON public.charts USING btree (id)
CREATE UNIQUE INDEX pk_checkpoints ON public.checkpoints USING btree (chart, seq)
CREATE UNIQUE INDEX pk_deliveries ON public.deliveries USING btree (id)
CREATE UNIQUE INDEX pk_replayed_keys ON public.replayed_keys USING btree (chart_id, idempotency_key)
CREATE UNIQUE INDEX pk_reports ON public.reports USING btree (chart_id, run, visit, machine)
CREATE UNIQUE INDEX pk_roster ON public.roster USING btree (version_id, machine)
CREATE UNIQUE INDEX pk_roster_machines ON public.roster_machines USING btree (roster_id, machine, since)
CREATE UNIQUE INDEX pk_roster_versions ON public.roster_versions USING btree (roster_id, version)
CREATE UNIQUE INDEX pk_rosters ON public.rosters USING btree (id)
CREATE UNIQUE INDEX pk_sessions ON public.sessions USING btree (sha256)
CREATE UNIQUE INDEX pk_slots ON public.slots USING btree (chart_id, machine)
CREATE UNIQUE INDEX pk_states ON public.states USING btree (id)
CREATE UNIQUE INDEX pk_subscription_cursors ON public.subscription_cursors USING btree (subscription_id, chart)
CREATE UNIQUE INDEX pk_subscriptions ON public.subscriptions USING btree (id)
CREATE UNIQUE INDEX pk_token_log ON public.token_log USING btree (id)
CREATE UNIQUE INDEX pk_tokens ON public.tokens USING btree (id)
CREATE UNIQUE INDEX pk_transition_log ON public.transition_log USING btree (id)
CREATE UNIQUE INDEX pk_transitions ON public.transitions USING btree (id)
CREATE UNIQUE INDEX pk_visits ON public.visits USING btree (chart_id, run, visit)
CREATE UNIQUE INDEX uq_attributes_state_id_key ON public.attributes USING btree (state_id, key)
CREATE UNIQUE INDEX uq_calendar_versions_calendar_version ON public.calendar_versions USING btree (calendar, version)
CREATE UNIQUE INDEX uq_chart_versions_chart_id_version ON public.chart_versions USING btree (chart_id, version)
CREATE UNIQUE INDEX uq_charts_name ON public.charts USING btree (name)
CREATE UNIQUE INDEX uq_rosters_name ON public.rosters USING btree (name)
CREATE UNIQUE INDEX uq_states_version_id_name ON public.states USING btree (version_id, name)
CREATE UNIQUE INDEX uq_subscriptions_name ON public.subscriptions USING btree (name)
CREATE UNIQUE INDEX uq_tokens_name ON public.tokens USING btree (name)
CREATE UNIQUE INDEX uq_tokens_sha256 ON public.tokens USING btree (sha256)
CREATE UNIQUE INDEX uq_transition_log_chart_idempotency_key ON public.transition_log USING btree (chart, idempotency_key)
CREATE UNIQUE INDEX uq_transition_log_chart_seq ON public.transition_log USING btree (chart, seq)
CREATE UNIQUE INDEX uq_transitions_state_id_position ON public.transitions USING btree (state_id, "position")

-- sequences
attributes_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
calendar_versions_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
chart_versions_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
charts_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
deliveries_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
rosters_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
states_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
subscriptions_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
token_log_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
tokens_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
transition_log_id_seq bigint start 1 step 1 from 1 to 9223372036854775807
transitions_id_seq bigint start 1 step 1 from 1 to 9223372036854775807

-- functions
CREATE OR REPLACE FUNCTION public.check_log_insert()
 RETURNS trigger
 LANGUAGE plpgsql
 SET enable_sort TO 'off'
AS $function$
BEGIN
    IF NEW.seq <> coalesce((SELECT seq FROM transition_log WHERE chart = NEW.chart ORDER BY seq DESC LIMIT 1), 0) + 1 THEN
        RAISE EXCEPTION 'transition_log is append-only: seq must be the next one of its chart'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$function$
CREATE OR REPLACE FUNCTION public.refuse_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION '% is %: % is refused', TG_TABLE_NAME, TG_ARGV[0], TG_OP USING ERRCODE = 'restrict_violation';
END
$function$

-- triggers
CREATE TRIGGER attributes_refuses_delete BEFORE DELETE ON public.attributes FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER attributes_refuses_truncate BEFORE TRUNCATE ON public.attributes FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER attributes_refuses_update BEFORE UPDATE ON public.attributes FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER calendar_versions_refuses_delete BEFORE DELETE ON public.calendar_versions FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER calendar_versions_refuses_truncate BEFORE TRUNCATE ON public.calendar_versions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER calendar_versions_refuses_update BEFORE UPDATE ON public.calendar_versions FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER chart_versions_refuses_delete BEFORE DELETE ON public.chart_versions FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER chart_versions_refuses_truncate BEFORE TRUNCATE ON public.chart_versions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER chart_versions_refuses_update BEFORE UPDATE ON public.chart_versions FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER roster_refuses_delete BEFORE DELETE ON public.roster FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER roster_refuses_truncate BEFORE TRUNCATE ON public.roster FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER roster_refuses_update BEFORE UPDATE ON public.roster FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER roster_versions_refuses_delete BEFORE DELETE ON public.roster_versions FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER roster_versions_refuses_truncate BEFORE TRUNCATE ON public.roster_versions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER roster_versions_refuses_update BEFORE UPDATE ON public.roster_versions FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER states_refuses_delete BEFORE DELETE ON public.states FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER states_refuses_truncate BEFORE TRUNCATE ON public.states FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER states_refuses_update BEFORE UPDATE ON public.states FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER token_log_refuses_delete BEFORE DELETE ON public.token_log FOR EACH ROW EXECUTE FUNCTION refuse_change('append-only')
CREATE TRIGGER token_log_refuses_truncate BEFORE TRUNCATE ON public.token_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('append-only')
CREATE TRIGGER token_log_refuses_update BEFORE UPDATE ON public.token_log FOR EACH ROW EXECUTE FUNCTION refuse_change('append-only')
CREATE TRIGGER transition_log_checks_insert BEFORE INSERT ON public.transition_log FOR EACH ROW EXECUTE FUNCTION check_log_insert()
CREATE TRIGGER transition_log_refuses_delete BEFORE DELETE ON public.transition_log FOR EACH ROW EXECUTE FUNCTION refuse_change('append-only')
CREATE TRIGGER transition_log_refuses_truncate BEFORE TRUNCATE ON public.transition_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('append-only')
CREATE TRIGGER transition_log_refuses_update BEFORE UPDATE ON public.transition_log FOR EACH ROW EXECUTE FUNCTION refuse_change('append-only')
CREATE TRIGGER transitions_refuses_delete BEFORE DELETE ON public.transitions FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER transitions_refuses_truncate BEFORE TRUNCATE ON public.transitions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('immutable')
CREATE TRIGGER transitions_refuses_update BEFORE UPDATE ON public.transitions FOR EACH ROW EXECUTE FUNCTION refuse_change('immutable')

-- views
v_current AS  SELECT c.name AS chart,
    c.version,
    c.run,
    c.visit,
    c.state AS current_state,
    s.id IS NOT NULL AND s.func IS NULL AS is_final,
    c.entered_at,
    c.paused_at,
    c.paused_by,
    c.pause_reason,
    a.key,
    COALESCE(av.value, a.value) AS value,
    ( SELECT t.threshold
           FROM transitions t
          WHERE t.state_id = s.id AND t.key::text = a.key::text AND t.threshold IS NOT NULL
          ORDER BY t."position"
         LIMIT 1) AS needed,
    ( SELECT count(*) AS count
           FROM reports r
          WHERE r.chart_id = c.id AND r.run = c.run AND r.visit = c.visit) AS reported,
    c.due_at,
    c.seq,
    c.updated_at
   FROM charts c
     LEFT JOIN chart_versions cv ON cv.chart_id = c.id AND cv.version = c.version
     LEFT JOIN states s ON s.version_id = cv.id AND s.name::text = c.state::text
     LEFT JOIN attributes a ON a.state_id = s.id AND a."position" = (( SELECT min(f."position") AS min
           FROM attributes f
          WHERE f.state_id = s.id))
     LEFT JOIN attribute_values av ON av.chart_id = c.id AND av.key::text = a.key::text
  WHERE c.archived_at IS NULL
v_machine_reports AS  SELECT c.name AS chart,
    r.run,
    r.visit,
    v.state,
    r.machine,
    r.key,
    r.reported_at,
    r.seq,
    r.note
   FROM reports r
     JOIN charts c ON c.id = r.chart_id
     LEFT JOIN visits v ON v.chart_id = r.chart_id AND v.run = r.run AND v.visit = r.visit
v_state_durations AS  SELECT c.name AS chart,
    v.run,
    v.visit,
    v.state,
    v.entered_at,
    v.left_at,
    GREATEST(EXTRACT(epoch FROM COALESCE(v.left_at, clock_timestamp()) - v.entered_at), 0::numeric) AS seconds
   FROM visits v
     JOIN charts c ON c.id = v.chart_id
