#!/bin/sh
# Writes the data files beside it from a running PostgreSQL 15: which system relations exist with which columns, and the
# rows of those that describe types, functions, operators and casts, cut to the types of types/info.rs. Files are PostgreSQL's COPY text.
# Usage: PGHOST=... PGUSER=... generate.sh   (any fresh database)
set -eu
cd "$(dirname "$0")"
types=$(sed -n 's/^    row(Type[^ ]* "\([a-z0-9_]*\)",.*/\1/p' ../../types/info.rs | sort -u | sed "s/.*/'&'/" | paste -sd, -)
ours="(select oid from pg_type where typnamespace = 11 and typname in ($types))"
relations="'pg_aggregate','pg_am','pg_amop','pg_amproc','pg_attrdef','pg_attribute','pg_auth_members','pg_authid','pg_available_extension_versions','pg_available_extensions','pg_cast','pg_class','pg_collation','pg_constraint','pg_conversion','pg_cursors','pg_database','pg_db_role_setting','pg_default_acl','pg_depend','pg_description','pg_enum','pg_event_trigger','pg_extension','pg_foreign_data_wrapper','pg_foreign_server','pg_foreign_table','pg_group','pg_index','pg_indexes','pg_inherits','pg_init_privs','pg_language','pg_largeobject_metadata','pg_locks','pg_matviews','pg_namespace','pg_opclass','pg_operator','pg_opfamily','pg_parameter_acl','pg_partitioned_table','pg_policies','pg_policy','pg_prepared_statements','pg_prepared_xacts','pg_proc','pg_publication','pg_publication_namespace','pg_publication_rel','pg_publication_tables','pg_range','pg_replication_slots','pg_rewrite','pg_roles','pg_rules','pg_seclabel','pg_seclabels','pg_sequence','pg_sequences','pg_settings','pg_shadow','pg_shdepend','pg_shdescription','pg_shseclabel','pg_stat_activity','pg_stat_database','pg_statistic_ext','pg_stats_ext','pg_subscription','pg_subscription_rel','pg_tables','pg_tablespace','pg_transform','pg_trigger','pg_ts_config','pg_ts_config_map','pg_ts_dict','pg_ts_parser','pg_ts_template','pg_type','pg_user','pg_user_mapping','pg_user_mappings','pg_views'"
views="'schemata','tables','columns','views','table_constraints','key_column_usage','constraint_column_usage','constraint_table_usage','referential_constraints','sequences','check_constraints','routines','triggers','domains','enabled_roles','applicable_roles','element_types','information_schema_catalog_name','user_defined_types','view_table_usage','domain_constraints','foreign_tables','foreign_servers','foreign_data_wrappers','foreign_server_options','foreign_table_options','column_options'"

# schema, oid, name, kind, comma-separated columns as name:type:typmod:notnull. Domains are told as their base types, types that do not exist here as text.
psql -XqAt -F "$(printf '\t')" > relations.tsv <<SQL
select case n.nspname when 'pg_catalog' then 11 else 13000 end, c.oid, c.relname, c.relkind,
  string_agg(a.attname || ':' || (case when b.oid in $ours then b.oid else 25 end) || ':' ||
    (case when t.typtype = 'd' then t.typtypmod else a.atttypmod end) || ':' || (a.attnotnull::int), ',' order by a.attnum)
from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
join pg_type t on t.oid = a.atttypid join pg_type b on b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
where n.nspname = 'pg_catalog' and c.relname in ($relations) or n.nspname = 'information_schema' and c.relname in ($views)
group by 1, 2, 3, 4 order by 1, 3
SQL

# The rows of a catalog that satisfy a condition, in oid order; functions by oid, no expression trees, no privileges.
rows() {
  list=$(psql -XqAt <<SQL
select string_agg(case when atttypid = 'regproc'::regtype then attname || '::oid' when atttypid in ('pg_node_tree'::regtype, 'aclitem[]'::regtype) then 'null'
  else attname end, ', ' order by attnum) from pg_attribute where attrelid = '$1'::regclass and attnum > 0
SQL
)
  psql -XqAt -c "copy (select $list from $1 r where $2 order by $3) to stdout" > "$1.tsv"
}
rows pg_type "oid in $ours" oid
rows pg_proc "prorettype in $ours and not exists (select from unnest(proargtypes) a where a not in $ours) and pronamespace = 11" oid
rows pg_operator "oprright in $ours and oprleft in (select 0::oid union all select t.oid from $ours t) and oprresult in $ours" oid
rows pg_cast "castsource in $ours and casttarget in $ours" oid
rows pg_aggregate "aggfnoid in (select oid from pg_proc where prorettype in $ours and not exists (select from unnest(proargtypes) a where a not in $ours))" aggfnoid::oid
rows pg_am "amname in ('heap', 'btree')" oid
rows pg_language "lanname in ('internal', 'sql')" oid
rows pg_collation "collname in ('default', 'C', 'POSIX', 'ucs_basic')" oid
rows pg_tablespace "true" oid
rows pg_opclass "opcmethod = 403 and opcintype in $ours" oid
rows pg_opfamily "opfmethod = 403 and exists (select from pg_opclass c where c.opcfamily = r.oid and c.opcintype in $ours)" oid
rows pg_amop "amopmethod = 403 and amoplefttype in $ours and amoprighttype in $ours" oid
rows pg_amproc "amproclefttype in $ours and amprocrighttype in $ours and exists (select from pg_opfamily f where f.oid = amprocfamily and opfmethod = 403)" oid
