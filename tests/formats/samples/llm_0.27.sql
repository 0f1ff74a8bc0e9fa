CREATE TABLE "conversations" (
   "id" TEXT PRIMARY KEY,
   "name" TEXT,
   "model" TEXT
);
INSERT INTO "conversations" VALUES('01m8bq04t8aaem02cfa8fztnyx','Where is my refund?','fake');
CREATE TABLE "responses" (
   "id" TEXT PRIMARY KEY,
   "model" TEXT,
   "prompt" TEXT,
   "system" TEXT,
   "prompt_json" TEXT,
   "options_json" TEXT,
   "response" TEXT,
   "response_json" TEXT,
   "conversation_id" TEXT REFERENCES "conversations"("id"),
   "duration_ms" INTEGER,
   "datetime_utc" TEXT,
   "input_tokens" INTEGER,
   "output_tokens" INTEGER,
   "token_details" TEXT,
   "schema_id" TEXT REFERENCES "schemas"("id")
, "resolved_model" TEXT);
INSERT INTO "responses" VALUES('01m8bq04t8aaem02cfa8fztnyy','fake','Where is my refund?','Be brief.',NULL,'{}','It left on Monday.',NULL,'01m8bq04t8aaem02cfa8fztnyx',0,'2026-11-26T10:39:10.664421+00:00',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "responses" VALUES('01m8bq04vg8cb28vs98dx4fjn9','fake','Really?',NULL,NULL,'{}','Yes.',NULL,'01m8bq04t8aaem02cfa8fztnyx',0,'2026-11-26T10:39:10.704223+00:00',NULL,NULL,NULL,NULL,NULL);
