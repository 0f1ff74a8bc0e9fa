CREATE TABLE agent_messages (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                session_id TEXT NOT NULL,
                message_data TEXT NOT NULL,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
                FOREIGN KEY (session_id) REFERENCES agent_sessions (session_id)
                    ON DELETE CASCADE
            );
INSERT INTO "agent_messages" VALUES(1,'support-42','{"role": "user", "content": "Where is my refund?"}','2026-11-26 10:21:31');
INSERT INTO "agent_messages" VALUES(2,'support-42','{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "It left on Monday.", "annotations": []}]}','2026-11-26 10:21:31');
INSERT INTO "agent_messages" VALUES(3,'support-43','{"role": "user", "content": "Will it rain?"}','2026-11-26 10:21:31');
INSERT INTO "agent_messages" VALUES(4,'support-43','{"type": "reasoning", "id": "rs_1", "summary": []}','2026-11-26 10:21:31');
INSERT INTO "agent_messages" VALUES(5,'support-43','{"type": "function_call", "call_id": "c1", "name": "forecast", "arguments": "{}"}','2026-11-26 10:21:31');
INSERT INTO "agent_messages" VALUES(6,'support-43','{"type": "function_call_output", "call_id": "c1", "output": "rain"}','2026-11-26 10:21:31');
INSERT INTO "agent_messages" VALUES(7,'support-43','{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "Yes.", "annotations": []}]}','2026-11-26 10:21:31');
CREATE TABLE agent_sessions (
                session_id TEXT PRIMARY KEY,
                created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
                updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
            );
INSERT INTO "agent_sessions" VALUES('support-42','2026-11-26 10:21:31','2026-11-26 10:21:31');
INSERT INTO "agent_sessions" VALUES('support-43','2026-11-26 10:21:31','2026-11-26 10:21:31');
CREATE INDEX idx_agent_messages_session_id
            ON agent_messages (session_id, id)
        ;
