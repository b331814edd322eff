BEGIN TRANSACTION;
CREATE TABLE anomalies (
            id TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            service TEXT NOT NULL,
            name TEXT NOT NULL,
            tenant TEXT NOT NULL,
            state TEXT NOT NULL,
            severity TEXT NOT NULL,
            detected_unix_nano INTEGER NOT NULL,
            document BLOB NOT NULL);
CREATE TABLE cursors (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "cursors" VALUES('divert:quarantine',55);
INSERT INTO "cursors" VALUES('forward:otlp_grpc',77);
CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            destination TEXT NOT NULL,
            key TEXT NOT NULL,
            payload BLOB NOT NULL,
            state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'dropped')),
            reason TEXT NOT NULL DEFAULT '',
            attempts INTEGER NOT NULL DEFAULT 0,
            due_unix_nano INTEGER NOT NULL,
            enqueued_unix_nano INTEGER NOT NULL,
            UNIQUE (destination, key));
INSERT INTO "outbox" VALUES(1,'otlp_grpc','key',X'6576656E74','pending','',0,1000,1000);
CREATE TABLE quarantine (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            position INTEGER NOT NULL,
            signal INTEGER NOT NULL,
            stream TEXT NOT NULL,
            payload BLOB NOT NULL,
            payload_bytes INTEGER NOT NULL,
            item_count INTEGER NOT NULL,
            state TEXT NOT NULL DEFAULT 'withheld' CHECK (state IN ('withheld', 'released')),
            withheld_unix_nano INTEGER NOT NULL, payload_crc INTEGER,
            UNIQUE (position, signal));
INSERT INTO "quarantine" VALUES(1,10,1,'logs/shop',X'0A0A0A0A0A0A0A0A',8,3,'withheld',1010,NULL);
INSERT INTO "quarantine" VALUES(2,20,1,'logs/shop',X'1414141414141414',8,3,'withheld',1020,NULL);
CREATE TABLE quarantine_anomalies (
            anomaly_id TEXT NOT NULL,
            row_id INTEGER NOT NULL REFERENCES quarantine (id) ON DELETE CASCADE,
            PRIMARY KEY (anomaly_id, row_id)) WITHOUT ROWID;
INSERT INTO "quarantine_anomalies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1);
INSERT INTO "quarantine_anomalies" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',2);
CREATE TABLE usage (
            hour_unix_s INTEGER NOT NULL,
            tenant TEXT NOT NULL,
            signal TEXT NOT NULL,
            items INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            requests INTEGER NOT NULL,
            PRIMARY KEY (hour_unix_s, tenant, signal)) WITHOUT ROWID;
INSERT INTO "usage" VALUES(3600,'acme','logs',5,50,1);
CREATE TABLE verdicts (
            position INTEGER NOT NULL,
            first_item INTEGER NOT NULL,
            item_count INTEGER NOT NULL,
            anomaly_id TEXT NOT NULL,
            PRIMARY KEY (position, first_item, item_count, anomaly_id)) WITHOUT ROWID;
INSERT INTO "verdicts" VALUES(90,0,2,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');
CREATE TABLE windows (
            kind TEXT NOT NULL,
            service TEXT NOT NULL,
            name TEXT NOT NULL,
            tenant TEXT NOT NULL,
            start_unix_nano INTEGER NOT NULL,
            end_unix_nano INTEGER NOT NULL,
            record_count INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            score REAL NOT NULL,
            p_value REAL NOT NULL,
            bits REAL NOT NULL,
            ncd REAL NOT NULL,
            compression_ratio REAL NOT NULL,
            baseline_compression_ratio REAL NOT NULL,
            entropy_bits REAL NOT NULL,
            baseline_entropy_bits REAL NOT NULL,
            UNIQUE (kind, service, name, tenant, start_unix_nano, end_unix_nano));
CREATE INDEX anomalies_by_time ON anomalies (detected_unix_nano DESC);
CREATE INDEX anomalies_open ON anomalies (state) WHERE state = 'open';
CREATE INDEX outbox_pending ON outbox (destination, id) WHERE state = 'pending';
CREATE INDEX outbox_finished ON outbox (enqueued_unix_nano) WHERE state <> 'pending';
CREATE INDEX quarantine_by_state ON quarantine (state, position);
CREATE INDEX quarantine_anomalies_by_row ON quarantine_anomalies (row_id);
CREATE INDEX quarantine_by_age ON quarantine
            (withheld_unix_nano, id, payload_bytes, item_count, signal) WHERE state = 'withheld';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('quarantine',2);
INSERT INTO "sqlite_sequence" VALUES('outbox',1);
COMMIT;
