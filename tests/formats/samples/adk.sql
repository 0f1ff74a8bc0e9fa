CREATE TABLE adk_internal_metadata (
	"key" VARCHAR(128) NOT NULL, 
	value VARCHAR(256) NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "adk_internal_metadata" VALUES('schema_version','1');
CREATE TABLE app_states (
	app_name VARCHAR(128) NOT NULL, 
	state TEXT NOT NULL, 
	update_time DATETIME NOT NULL, 
	PRIMARY KEY (app_name)
);
INSERT INTO "app_states" VALUES('desk','{"v": 1}','2026-11-26 10:27:33');
CREATE TABLE events (
	id VARCHAR(128) NOT NULL, 
	app_name VARCHAR(128) NOT NULL, 
	user_id VARCHAR(128) NOT NULL, 
	session_id VARCHAR(128) NOT NULL, 
	invocation_id VARCHAR(256) NOT NULL, 
	timestamp DATETIME NOT NULL, 
	event_data TEXT, 
	PRIMARY KEY (id, app_name, user_id, session_id), 
	FOREIGN KEY(app_name, user_id, session_id) REFERENCES sessions (app_name, user_id, id) ON DELETE CASCADE
);
INSERT INTO "events" VALUES('936de1ba-d429-41c6-a564-bba64cda15ae','desk','ada','support-42','i1','2026-11-26 10:27:33.643177','{"content": {"parts": [{"text": "Will it rain?"}], "role": "user"}, "invocation_id": "i1", "author": "user", "actions": {"state_delta": {"n": 1}, "artifact_delta": {}, "requested_auth_configs": {}, "requested_tool_confirmations": {}}, "node_info": {"path": ""}, "id": "936de1ba-d429-41c6-a564-bba64cda15ae", "timestamp": 1795688853.6431766}');
INSERT INTO "events" VALUES('08483192-dc2b-4450-b12b-0680e7763d4d','desk','ada','support-42','i1','2026-11-26 10:27:33.656888','{"content": {"parts": [{"function_call": {"id": "c1", "args": {}, "name": "forecast"}}], "role": "model"}, "invocation_id": "i1", "author": "agent", "actions": {"state_delta": {}, "artifact_delta": {}, "requested_auth_configs": {}, "requested_tool_confirmations": {}}, "node_info": {"path": ""}, "id": "08483192-dc2b-4450-b12b-0680e7763d4d", "timestamp": 1795688853.6568885}');
INSERT INTO "events" VALUES('ff2d3ea0-9f6c-478d-b27b-84e91af54590','desk','ada','support-42','i1','2026-11-26 10:27:33.661630','{"content": {"parts": [{"function_response": {"id": "c1", "name": "forecast", "response": {"result": "rain"}}}], "role": "user"}, "invocation_id": "i1", "author": "agent", "actions": {"state_delta": {}, "artifact_delta": {}, "requested_auth_configs": {}, "requested_tool_confirmations": {}}, "node_info": {"path": ""}, "id": "ff2d3ea0-9f6c-478d-b27b-84e91af54590", "timestamp": 1795688853.6616297}');
INSERT INTO "events" VALUES('194f9bab-1766-48e6-9c53-b13f3cb66d70','desk','ada','support-42','i1','2026-11-26 10:27:33.665493','{"content": {"parts": [{"text": "Yes."}], "role": "model"}, "invocation_id": "i1", "author": "agent", "actions": {"state_delta": {}, "artifact_delta": {}, "requested_auth_configs": {}, "requested_tool_confirmations": {}}, "node_info": {"path": ""}, "id": "194f9bab-1766-48e6-9c53-b13f3cb66d70", "timestamp": 1795688853.6654925}');
CREATE TABLE sessions (
	app_name VARCHAR(128) NOT NULL, 
	user_id VARCHAR(128) NOT NULL, 
	id VARCHAR(128) NOT NULL, 
	state TEXT NOT NULL, 
	create_time DATETIME NOT NULL, 
	update_time DATETIME NOT NULL, 
	PRIMARY KEY (app_name, user_id, id)
);
INSERT INTO "sessions" VALUES('desk','ada','support-42','{"topic": "weather", "n": 1}','2026-11-26 10:27:33.633667','2026-11-26 10:27:33.665493');
INSERT INTO "sessions" VALUES('desk','bob','support-42','{}','2026-11-26 10:27:33.672346','2026-11-26 10:27:33.672346');
CREATE TABLE user_states (
	app_name VARCHAR(128) NOT NULL, 
	user_id VARCHAR(128) NOT NULL, 
	state TEXT NOT NULL, 
	update_time DATETIME NOT NULL, 
	PRIMARY KEY (app_name, user_id)
);
INSERT INTO "user_states" VALUES('desk','ada','{"tier": "gold"}','2026-11-26 10:27:33');
INSERT INTO "user_states" VALUES('desk','bob','{}','2026-11-26 10:27:33');
CREATE INDEX idx_events_app_user_session_ts_id ON events (app_name, user_id, session_id, timestamp DESC, id DESC);
