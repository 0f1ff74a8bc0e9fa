CREATE TABLE message_store (
	id INTEGER NOT NULL, 
	session_id TEXT, 
	message TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "message_store" VALUES(1,'support-42','{"type": "system", "data": {"content": "Be brief.", "additional_kwargs": {}, "response_metadata": {}, "type": "system", "name": null, "id": null}}');
INSERT INTO "message_store" VALUES(2,'support-42','{"type": "human", "data": {"content": "Will it rain?", "additional_kwargs": {}, "response_metadata": {}, "type": "human", "name": null, "id": "h1"}}');
INSERT INTO "message_store" VALUES(3,'support-42','{"type": "ai", "data": {"content": "", "additional_kwargs": {}, "response_metadata": {}, "type": "ai", "name": null, "id": null, "tool_calls": [{"name": "forecast", "args": {}, "id": "c1", "type": "tool_call"}], "invalid_tool_calls": [], "usage_metadata": null}}');
INSERT INTO "message_store" VALUES(4,'support-42','{"type": "tool", "data": {"content": "rain", "additional_kwargs": {}, "response_metadata": {}, "type": "tool", "name": null, "id": null, "tool_call_id": "c1", "artifact": null, "status": "success"}}');
INSERT INTO "message_store" VALUES(5,'support-42','{"type": "ai", "data": {"content": "Yes.", "additional_kwargs": {}, "response_metadata": {}, "type": "ai", "name": null, "id": null, "tool_calls": [], "invalid_tool_calls": [], "usage_metadata": null}}');
INSERT INTO "message_store" VALUES(6,'support-43','{"type": "human", "data": {"content": "Where is my refund?", "additional_kwargs": {}, "response_metadata": {}, "type": "human", "name": null, "id": null}}');
INSERT INTO "message_store" VALUES(7,'support-43','{"type": "ai", "data": {"content": [{"type": "text", "text": "It left on Monday."}], "additional_kwargs": {}, "response_metadata": {}, "type": "ai", "name": null, "id": null, "tool_calls": [], "invalid_tool_calls": [], "usage_metadata": null}}');
