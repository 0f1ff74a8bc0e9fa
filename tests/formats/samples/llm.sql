CREATE TABLE "conversations" (
   "id" TEXT PRIMARY KEY,
   "name" TEXT,
   "model" TEXT
);
CREATE TABLE "messages" (
   "hash" TEXT PRIMARY KEY,
   "parent_hash" TEXT REFERENCES "messages"("hash"),
   "role" TEXT,
   "provider_metadata" TEXT
);
INSERT INTO "messages" VALUES('b2:074dea0bd0259e0d5dca16426a45e4f5',NULL,'system',NULL);
INSERT INTO "messages" VALUES('b2:2c97d665a1b74404e0608bff45d1db4b','b2:074dea0bd0259e0d5dca16426a45e4f5','user',NULL);
INSERT INTO "messages" VALUES('b2:48635ac159128cb97d68fefb50c905cd','b2:2c97d665a1b74404e0608bff45d1db4b','assistant',NULL);
INSERT INTO "messages" VALUES('b2:17d3aeddcd2cb324e9b54c9ff317d12f','b2:48635ac159128cb97d68fefb50c905cd','user',NULL);
INSERT INTO "messages" VALUES('b2:8085ca0a31ec4484f383dcf30b824dda','b2:17d3aeddcd2cb324e9b54c9ff317d12f','assistant',NULL);
INSERT INTO "messages" VALUES('b2:fea917c1e32bd8db6b671d1f8194b805',NULL,'user',NULL);
INSERT INTO "messages" VALUES('b2:9db9c1574344f9ce7d50ac13ae1ecfdb','b2:fea917c1e32bd8db6b671d1f8194b805','assistant',NULL);
CREATE TABLE "parts" (
   "id" INTEGER PRIMARY KEY,
   "message_hash" TEXT REFERENCES "messages"("hash"),
   "position" INTEGER,
   "type" TEXT,
   "tool_name" TEXT,
   "text" TEXT,
   "payload" TEXT
);
INSERT INTO "parts" VALUES(1,'b2:074dea0bd0259e0d5dca16426a45e4f5',0,'text',NULL,'Be brief.',NULL);
INSERT INTO "parts" VALUES(2,'b2:2c97d665a1b74404e0608bff45d1db4b',0,'text',NULL,'Where is my refund?',NULL);
INSERT INTO "parts" VALUES(3,'b2:48635ac159128cb97d68fefb50c905cd',0,'text',NULL,'It left on Monday.',NULL);
INSERT INTO "parts" VALUES(4,'b2:17d3aeddcd2cb324e9b54c9ff317d12f',0,'text',NULL,'Really?',NULL);
INSERT INTO "parts" VALUES(5,'b2:8085ca0a31ec4484f383dcf30b824dda',0,'text',NULL,'Yes.',NULL);
INSERT INTO "parts" VALUES(6,'b2:fea917c1e32bd8db6b671d1f8194b805',0,'text',NULL,'Alone?',NULL);
INSERT INTO "parts" VALUES(7,'b2:9db9c1574344f9ce7d50ac13ae1ecfdb',0,'text',NULL,'Yes.',NULL);
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
, "resolved_model" TEXT, "reasoning" TEXT);
CREATE TABLE "threads" (
   "id" TEXT PRIMARY KEY,
   "name" TEXT,
   "tip_message_hash" TEXT REFERENCES "messages"("hash"),
   "forked_from" TEXT REFERENCES "threads"("id"),
   "datetime_utc" TEXT
);
INSERT INTO "threads" VALUES('01m8bnzvjn83tcx0yhp3p4gwf2','Where is my refund?','b2:8085ca0a31ec4484f383dcf30b824dda',NULL,'2026-11-26 10:21:32.631668+00:00');
INSERT INTO "threads" VALUES('01m8bnzvjwemnq9yf8ddzpbnq9','Alone?','b2:9db9c1574344f9ce7d50ac13ae1ecfdb',NULL,'2026-11-26 10:21:32.636430+00:00');
CREATE TABLE "turns" (
   "id" TEXT PRIMARY KEY,
   "thread_id" TEXT REFERENCES "threads"("id"),
   "parent_message_hash" TEXT REFERENCES "messages"("hash"),
   "tip_message_hash" TEXT REFERENCES "messages"("hash"),
   "model" TEXT,
   "resolved_model" TEXT,
   "options_json" TEXT,
   "schema_id" TEXT REFERENCES "schemas"("id"),
   "input_tokens" INTEGER,
   "output_tokens" INTEGER,
   "token_details" TEXT,
   "duration_ms" INTEGER,
   "datetime_utc" TEXT
, "response_json" TEXT);
INSERT INTO "turns" VALUES('01m8bnzvjn83tcx0yhp3p4gwf3','01m8bnzvjn83tcx0yhp3p4gwf2','b2:2c97d665a1b74404e0608bff45d1db4b','b2:48635ac159128cb97d68fefb50c905cd','fake',NULL,NULL,NULL,NULL,NULL,NULL,0,'2026-11-26T10:21:32.630004+00:00',NULL);
INSERT INTO "turns" VALUES('01m8bnzvjtw90s9rd4wgg87hdt','01m8bnzvjn83tcx0yhp3p4gwf2','b2:17d3aeddcd2cb324e9b54c9ff317d12f','b2:8085ca0a31ec4484f383dcf30b824dda','fake',NULL,NULL,NULL,NULL,NULL,NULL,0,'2026-11-26T10:21:32.634229+00:00',NULL);
INSERT INTO "turns" VALUES('01m8bnzvjwemnq9yf8ddzpbnq8','01m8bnzvjwemnq9yf8ddzpbnq9','b2:fea917c1e32bd8db6b671d1f8194b805','b2:9db9c1574344f9ce7d50ac13ae1ecfdb','fake',NULL,NULL,NULL,NULL,NULL,NULL,0,'2026-11-26T10:21:32.636156+00:00',NULL);
