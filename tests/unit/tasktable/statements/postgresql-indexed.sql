SELECT -2, 0, STATEMENT_TIMESTAMP(), ''
UNION ALL SELECT -1, number, due, CONCAT(CASE WHEN status = 'RUNNING' THEN '1' ELSE '0' END, CASE WHEN backend_name = 'default' AND queue_name IN ('emails', 'Emails') THEN '1' ELSE '0' END, CASE WHEN backend_name = 'default' AND NOT queue_name IN ('reports') THEN '1' ELSE '0' END, CASE WHEN backend_name = 'default' AND queue_name IN ('emails') THEN '1' ELSE '0' END, queue_name)
FROM (SELECT "django_tasks_database_dbtaskresult"."status" AS "status", "django_tasks_database_dbtaskresult"."backend_name" AS "backend_name", "django_tasks_database_dbtaskresult"."queue_name" AS "queue_name", COUNT(*) AS "number", MIN("django_tasks_database_dbtaskresult"."enqueued_at") AS "due"
FROM "django_tasks_database_dbtaskresult"
WHERE ("django_tasks_database_dbtaskresult"."status" = 'RUNNING' AND "django_tasks_database_dbtaskresult"."backend_name" IN ('default') AND "django_tasks_database_dbtaskresult"."status" IN ('RUNNING'))
GROUP BY 1, 2, 3) grouped
UNION ALL SELECT 0, COUNT(*), MIN(due), ''
FROM (SELECT "django_tasks_database_dbtaskresult"."enqueued_at" AS "due"
FROM "django_tasks_database_dbtaskresult"
WHERE ("django_tasks_database_dbtaskresult"."backend_name" = 'default' AND "django_tasks_database_dbtaskresult"."status" = 'READY' AND "django_tasks_database_dbtaskresult"."queue_name" = 'Emails' AND "django_tasks_database_dbtaskresult"."run_after" >= '9998-12-31 00:00:00+00:00' AND "django_tasks_database_dbtaskresult"."run_after" < '9999-01-02 00:00:00+00:00')
ORDER BY "django_tasks_database_dbtaskresult"."run_after" ASC, "django_tasks_database_dbtaskresult"."enqueued_at" ASC
LIMIT 100) arm
UNION ALL SELECT 0, COUNT(*), MIN(due), ''
FROM (SELECT GREATEST("django_tasks_database_dbtaskresult"."run_after", "django_tasks_database_dbtaskresult"."enqueued_at") AS "due"
FROM "django_tasks_database_dbtaskresult"
WHERE ("django_tasks_database_dbtaskresult"."backend_name" = 'default' AND "django_tasks_database_dbtaskresult"."status" = 'READY' AND "django_tasks_database_dbtaskresult"."queue_name" = 'Emails' AND "django_tasks_database_dbtaskresult"."run_after" <= (STATEMENT_TIMESTAMP()))
ORDER BY "django_tasks_database_dbtaskresult"."run_after" ASC, "django_tasks_database_dbtaskresult"."enqueued_at" ASC
LIMIT 100) arm
UNION ALL SELECT 1, COUNT(*), MIN(due), ''
FROM (SELECT "django_tasks_database_dbtaskresult"."enqueued_at" AS "due"
FROM "django_tasks_database_dbtaskresult"
WHERE ("django_tasks_database_dbtaskresult"."backend_name" = 'default' AND "django_tasks_database_dbtaskresult"."status" = 'READY' AND "django_tasks_database_dbtaskresult"."queue_name" = 'emails' AND "django_tasks_database_dbtaskresult"."run_after" >= '9998-12-31 00:00:00+00:00' AND "django_tasks_database_dbtaskresult"."run_after" < '9999-01-02 00:00:00+00:00')
ORDER BY "django_tasks_database_dbtaskresult"."run_after" ASC, "django_tasks_database_dbtaskresult"."enqueued_at" ASC
LIMIT 100) arm
UNION ALL SELECT 1, COUNT(*), MIN(due), ''
FROM (SELECT GREATEST("django_tasks_database_dbtaskresult"."run_after", "django_tasks_database_dbtaskresult"."enqueued_at") AS "due"
FROM "django_tasks_database_dbtaskresult"
WHERE ("django_tasks_database_dbtaskresult"."backend_name" = 'default' AND "django_tasks_database_dbtaskresult"."status" = 'READY' AND "django_tasks_database_dbtaskresult"."queue_name" = 'emails' AND "django_tasks_database_dbtaskresult"."run_after" <= (STATEMENT_TIMESTAMP()))
ORDER BY "django_tasks_database_dbtaskresult"."run_after" ASC, "django_tasks_database_dbtaskresult"."enqueued_at" ASC
LIMIT 100) arm
UNION ALL SELECT -3, COUNT(*), MIN(due), ''
FROM (SELECT "django_tasks_database_dbtaskresult"."enqueued_at" AS "due"
FROM "django_tasks_database_dbtaskresult"
WHERE ("django_tasks_database_dbtaskresult"."backend_name" = 'default' AND "django_tasks_database_dbtaskresult"."status" = 'READY' AND "django_tasks_database_dbtaskresult"."queue_name" < 'emails')
ORDER BY "django_tasks_database_dbtaskresult"."queue_name" ASC
LIMIT 1) arm
UNION ALL SELECT -3, COUNT(*), MIN(due), ''
FROM (SELECT "django_tasks_database_dbtaskresult"."enqueued_at" AS "due"
FROM "django_tasks_database_dbtaskresult"
WHERE ("django_tasks_database_dbtaskresult"."backend_name" = 'default' AND "django_tasks_database_dbtaskresult"."status" = 'READY' AND "django_tasks_database_dbtaskresult"."queue_name" > 'emails' AND "django_tasks_database_dbtaskresult"."queue_name" < 'reports')
ORDER BY "django_tasks_database_dbtaskresult"."queue_name" ASC
LIMIT 1) arm
UNION ALL SELECT -3, COUNT(*), MIN(due), ''
FROM (SELECT "django_tasks_database_dbtaskresult"."enqueued_at" AS "due"
FROM "django_tasks_database_dbtaskresult"
WHERE ("django_tasks_database_dbtaskresult"."backend_name" = 'default' AND "django_tasks_database_dbtaskresult"."status" = 'READY' AND "django_tasks_database_dbtaskresult"."queue_name" > 'reports')
ORDER BY "django_tasks_database_dbtaskresult"."queue_name" ASC
LIMIT 1) arm
