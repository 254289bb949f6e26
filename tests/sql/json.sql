-- postgres
-- json and jsonb: input, output, operators, functions, keys, errors.
\pset null NULL

-- input and output
SELECT '{"a": 1.0e3,  "b" :[ ]}'::json, '{"b":1,"a":2, "a":3}'::jsonb, '  [1,2 , {}]  '::jsonb, '"x"'::json, 'null'::jsonb, ' true '::json;
SELECT '1.0'::jsonb, '1e2'::jsonb, '-0'::jsonb, '-0.0'::jsonb, '1.50e1'::jsonb, '12345678901234567890.123456789'::jsonb, '1e-5'::jsonb, '-1.5'::jsonb, '0.10'::jsonb;
SELECT '{"aaa":1,"b":2,"cc":3,"a":4,"":5}'::jsonb;
SELECT '"\u00e9\ud83d\ude00\n\t\"\\\/\b\f\r\u0001\u007f"'::jsonb, '"\u00e9\ud83d\ude00\n\t\"\\\/\b\f\r\u0001"'::json;
SELECT '"\u00e9\n\u0001"'::jsonb #>> '{}', '"a\"b"'::json #>> '{}', '" é "'::jsonb::text;
SELECT '[]'::jsonb, '{}'::jsonb, '[[],{},[{}]]'::jsonb, '{"a":{"b":{"c":[1,[2,[3]]]}}}'::jsonb;
SELECT pg_typeof('1'::json), pg_typeof('1'::jsonb), pg_typeof('{1}'::jsonb[]), '{"1","{\"a\": 1}"}'::jsonb[], '{"[1, 2]",NULL}'::json[];
SELECT length((repeat('[', 3000) || repeat(']', 3000))::jsonb::text), length((repeat('{"a":', 3000) || '1' || repeat('}', 3000))::json::text);
SELECT jsonb '{"a":1}', json '[1]', CAST('{"x": null}' AS jsonb);

-- input errors
SELECT '{bad'::json;
SELECT ''::json;
SELECT ' '::jsonb;
SELECT '{"a":1'::json;
SELECT '{"a":1,}'::jsonb;
SELECT '{"a" 1}'::jsonb;
SELECT '{1:2}'::json;
SELECT '{,}'::json;
SELECT '[1,]'::json;
SELECT '[1 2]'::json;
SELECT '[,]'::jsonb;
SELECT '[1'::jsonb;
SELECT '1 2'::json;
SELECT '{"a":1} x'::jsonb;
SELECT 'tru'::json;
SELECT 'nulll'::json;
SELECT 'TRUE'::json;
SELECT '01'::json;
SELECT '1.'::json;
SELECT '.5'::json;
SELECT '-'::json;
SELECT '1e'::json;
SELECT '1e+'::json;
SELECT '+1'::json;
SELECT '1a'::json;
SELECT '0x10'::jsonb;
SELECT '''a'''::json;
SELECT '"abc'::json;
SELECT '"a\'::json;
SELECT '"\x"'::json;
SELECT '"\x"'::jsonb;
SELECT '"\é"'::json;
SELECT '"\u12"'::json;
SELECT '"\u12zz"'::json;
SELECT '"\u0000"'::json;
SELECT '"\u0000"'::jsonb;
SELECT '{"a": "\u0000 b"}'::jsonb;
SELECT '"\ud800"'::json;
SELECT '"\ud800"'::jsonb;
SELECT '"\ud800x"'::jsonb;
SELECT '"\ud800\n"'::jsonb;
SELECT '"\ud800\ud800"'::jsonb;
SELECT '"\udc00"'::jsonb;
SELECT '"\u00e9\udc00"'::jsonb;
SELECT '"\u0000"'::json ->> 0, '"\u0000"'::json #>> '{}';
SELECT E'"a\nb"'::json;
SELECT E'"a\tb"'::jsonb;
SELECT E'{"a":1,\n"b":\n  tru}'::jsonb;
SELECT '{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": wrong, "b": 1}'::jsonb;
SELECT '{"éééééééééééééééééééééééééééééééééééééééééééé": wrong, "b": 1}'::jsonb;
SELECT '[1, 2, é]'::json;
SELECT '[1, 2, ?]'::json;
SELECT '}'::json;
SELECT ']'::jsonb;
SELECT ':'::jsonb;
SELECT '[}'::jsonb;
SELECT '{]'::jsonb;
SELECT '{"a":}'::jsonb;
SELECT '{"a":1 "b"}'::jsonb;
SELECT '{"a","b"}'::jsonb;
SELECT '1e1000000'::jsonb;
SELECT '1e1000000'::json;

-- -> and ->>
SELECT j -> 'a', j ->> 'a', j -> 'b', j ->> 'b', j -> 'z', j ->> 'n', j -> 'n' FROM (VALUES ('{"a": "x", "b": {"c":  [1,2]}, "n": null}'::json)) v(j);
SELECT j -> 'a', j ->> 'a', j -> 'b', j ->> 'b', j -> 'z', j ->> 'n', j -> 'n' FROM (VALUES ('{"a": "x", "b": {"c":  [1,2]}, "n": null}'::jsonb)) v(j);
SELECT i, '[1, "b", null, [2], {"x": 3}]'::json -> i, '[1, "b", null, [2], {"x": 3}]'::json ->> i FROM generate_series(-6, 5) i;
SELECT i, '[1, "b", null, [2], {"x": 3}]'::jsonb -> i, '[1, "b", null, [2], {"x": 3}]'::jsonb ->> i FROM generate_series(-6, 5) i;
SELECT '1'::jsonb -> 0, '"a"'::jsonb ->> 0, '1'::jsonb -> 1, '1'::jsonb -> -1, '1'::json -> 0, '1'::jsonb -> 'a', '1'::json -> 'a';
SELECT '{"a":1}'::jsonb -> 0, '{"a":1}'::json -> 0, '[1]'::jsonb -> 'a', '[1]'::json -> 'a';
SELECT '{"a":1,"a":2}'::json -> 'a', '{"a":1,"a":{"b":2}}'::json #> '{a,b}';
SELECT '{"a":{"b":[1,2]}}'::jsonb -> 'a' -> 'b' ->> 1;
SELECT NULL::jsonb -> 'a', '{"a":1}'::jsonb -> NULL::text, '[1]'::json ->> NULL::int;

-- #> and #>>
SELECT j #> '{a,b,0}', j #>> '{a,b,0}', j #> '{a,b,-1}', j #> '{a,b,9}', j #> '{a,c}', j #> '{}', j #>> '{}', j #> '{a,x,y}', j #> '{a,b,x}' FROM (VALUES ('{"a":{"b":[1,"two"]}}'::json)) v(j);
SELECT j #> '{a,b,0}', j #>> '{a,b,0}', j #> '{a,b,-1}', j #> '{a,b,9}', j #> '{a,c}', j #> '{}', j #>> '{}', j #> '{a,x,y}', j #> '{a,b,x}' FROM (VALUES ('{"a":{"b":[1,"two"]}}'::jsonb)) v(j);
SELECT '"a"'::jsonb #>> '{}', '"a"'::jsonb #> '{}', '"a"'::json #>> '{}', '"a"'::json #> '{}', 'null'::jsonb #>> '{}', 'null'::json #> '{}';
SELECT '[1,2]'::jsonb #> '{ 1}', '[1,2]'::jsonb #> '{+1}', '[1,2]'::jsonb #> '{"1 "}', '[1,2]'::jsonb #> '{99999999999}', '[1]'::jsonb #> ARRAY[NULL]::text[];
SELECT json_extract_path('{"a":[1,{"b":"x"}]}', 'a', '1', 'b'), json_extract_path_text('{"a":[1,{"b":"x"}]}', 'a', '1', 'b'), json_extract_path('{"a":1}', 'b');
SELECT jsonb_extract_path('{"a":[1,{"b":"x"}]}', 'a', '1', 'b'), jsonb_extract_path_text('{"a":[1,{"b":"x"}]}', 'a', '1', 'b'), jsonb_extract_path('{"a":1}', VARIADIC ARRAY['a']);

-- subscripts
SELECT ('{"a":{"b":[1,2]}}'::jsonb)['a'], ('{"a":{"b":[1,2]}}'::jsonb)['a']['b'][1], ('[1,2]'::jsonb)[-1], ('[1,2]'::jsonb)['0'], ('{"1":2}'::jsonb)[1], ('[1]'::jsonb)[NULL], ('1'::jsonb)['a'];
SELECT ('[1,2]'::jsonb)[0:1];
SELECT ('[1,2]'::jsonb)[1.5];
SELECT ('[1,2]'::json)[1];

-- containment and existence
SELECT '{"a":1,"b":2}'::jsonb @> '{"b":2}', '{"a":1}'::jsonb @> '{"a":1,"b":2}', '{"a":1}' <@ '{"a":1,"b":2}'::jsonb, '[1,2,3]'::jsonb @> '[3,1,1]', '[1,2]'::jsonb @> '1', '1'::jsonb @> '[1]', '1'::jsonb @> '1', '[1]'::jsonb @> '[]', '{}'::jsonb @> '{}', '[]'::jsonb @> '{}', '{}'::jsonb @> '[]';
SELECT '{"a":{"b":[1,2,{"c":3}]}}'::jsonb @> '{"a":{"b":[{"c":3}]}}', '[[1,2]]'::jsonb @> '[[1]]', '[[1,2]]'::jsonb @> '[1]', '[1.0]'::jsonb @> '[1.00]', '{"a":[1]}'::jsonb @> '{"a":1}', '[{"a":1},{"b":2}]'::jsonb @> '[{"b":2}]', '["a"]'::jsonb @> '"a"', '{"a":1}'::jsonb @> '"a"', '{"a":null}'::jsonb @> '{"a":null}';
SELECT '{"a":1}'::jsonb ? 'a', '["a","b"]'::jsonb ? 'b', '"a"'::jsonb ? 'a', '[1]'::jsonb ? '1', '{"a":{"b":1}}'::jsonb ? 'b', '{"a":1,"b":2}'::jsonb ?| ARRAY['x','b'], '{"a":1,"b":2}'::jsonb ?& ARRAY['a','b'], '{"a":1}'::jsonb ?& ARRAY['a','b'], '{"a":1}'::jsonb ?| '{}', '{"a":1}'::jsonb ?& '{}', '["a"]'::jsonb ?| ARRAY[NULL,'a'], '["a"]'::jsonb ?& ARRAY[NULL,'a'];
SELECT '{"a":1}'::json @> '{}';
SELECT '{"a":1}'::json ? 'a';

-- joining and deleting
SELECT '{"a":1,"b":2}'::jsonb || '{"b":3,"c":4}', '[1,2]'::jsonb || '[3]', '[1]'::jsonb || '2', '1'::jsonb || '[2]', '1'::jsonb || '2', '{"a":1}'::jsonb || '[2]', '[2]'::jsonb || '{"a":1}', '{"a":1}'::jsonb || '2', '2'::jsonb || '{"a":1}', '{}'::jsonb || '{"a":1}', '[]'::jsonb || '{"a":1}', '[]'::jsonb || '1', '{}'::jsonb || '[]', '[]'::jsonb || '[]', '{}'::jsonb || '1', 'null'::jsonb || 'null';
SELECT '{"a":1,"b":2}'::jsonb - 'a', '["a","b","a",1]'::jsonb - 'a', '{"a":1}'::jsonb - 'z', '{"a":1,"b":2,"c":3}'::jsonb - ARRAY['a','c'], '["a","b"]'::jsonb - '{b}'::text[], '{"a":1}'::jsonb - ARRAY[NULL,'a'], '{}'::jsonb - 'a';
SELECT '[1,2,3]'::jsonb - 0, '[1,2,3]'::jsonb - -1, '[1,2,3]'::jsonb - 5, '[1,2,3]'::jsonb - -5, '[]'::jsonb - 0;
SELECT '{"a":1}'::jsonb - 1;
SELECT '1'::jsonb - 'a';
SELECT '1'::jsonb - 0;
SELECT '"a"'::jsonb - ARRAY['a'];
SELECT '{"a":{"b":[1,2]}}'::jsonb #- '{a,b,0}', '{"a":{"b":[1,2]}}'::jsonb #- '{a}', '{"a":1}'::jsonb #- '{b,c}', '[1,[2,3]]'::jsonb #- '{1,-1}', '[1]'::jsonb #- '{}', '{}'::jsonb #- '{a}', '[1,2]'::jsonb #- '{7}';
SELECT '[1,2]'::jsonb #- '{a}';
SELECT '1'::jsonb #- '{a}';
SELECT '[1]'::jsonb #- ARRAY[NULL]::text[];
SELECT '{"a":1}'::json - 'a';
SELECT '{"a":1}'::json || '{}'::json;

-- jsonb_set, jsonb_insert, jsonb_set_lax
SELECT jsonb_set('{"a":1}','{a}','2'), jsonb_set('{"a":1}','{b}','2'), jsonb_set('{"a":1}','{b}','2',false), jsonb_set('[1,2]','{0}','"x"'), jsonb_set('[1,2]','{9}','3'), jsonb_set('[1,2]','{-9}','3'), jsonb_set('[1,2]','{-1}','3'), jsonb_set('[1,2]','{9}','3',false), jsonb_set('{"a":{"b":1}}','{a,b}','[1]'), jsonb_set('{"a":{}}','{a,b}','[1]'), jsonb_set('{"a":1}','{b,c}','1'), jsonb_set('{"a":1}','{a,c}','1'), jsonb_set('{"a":1}','{}','1'), jsonb_set('{}','{a}','1'), jsonb_set('{}','{a}','1',false), jsonb_set('[]','{3}','1'), jsonb_set('{"a":1}', '{a}', NULL), jsonb_set('[[1],[2]]','{1,0}','{"x":null}');
SELECT jsonb_set('1','{a}','2');
SELECT jsonb_set('[1]','{x}','2');
SELECT jsonb_set('{"a":1}','{NULL}'::text[],'2');
SELECT jsonb_set('{"a":{"b":1}}',ARRAY['a',NULL],'2');
SELECT jsonb_set('{"a":1}','{{a},{b}}','2');
SELECT jsonb_insert('{"a":[0,1,2]}', '{a,1}', '"n"'), jsonb_insert('{"a":[0,1,2]}', '{a,1}', '"n"', true), jsonb_insert('{"a":[0]}', '{a,-1}', '"n"'), jsonb_insert('{"a":[0]}', '{a,-1}', '"n"', true), jsonb_insert('{"a":1}', '{b}', '2'), jsonb_insert('[]', '{0}', '1'), jsonb_insert('[1]', '{-5}', '0'), jsonb_insert('[1]', '{5}', '2'), jsonb_insert('{"a":{"b":1}}', '{a,c}', 'null');
SELECT jsonb_insert('{"a":1}', '{a}', '2');
SELECT jsonb_insert('1', '{a}', '2');
SELECT jsonb_set_lax('{"a":1,"b":2}', '{b}', NULL), jsonb_set_lax('{"a":1,"b":2}', '{b}', NULL, true, 'delete_key'), jsonb_set_lax('{"a":1,"b":2}', '{b}', NULL, true, 'return_target'), jsonb_set_lax('{"a":1,"b":2}', '{b}', '3'), jsonb_set_lax('{"a":1}', '{c}', NULL, false);
SELECT jsonb_set_lax('{"a":1}', '{a}', NULL, true, 'raise_exception');
SELECT jsonb_set_lax('{"a":1}', '{a}', NULL, true, 'what');

-- other functions
SELECT json_typeof(j), jsonb_typeof(j::jsonb) FROM unnest('{"{}","[]","1"," \"a\"",true,"null"}'::json[]) j;
SELECT json_array_length('[1,[2,3],{}]'), jsonb_array_length('[1,[2,3],{}]'), json_array_length('[]'), jsonb_array_length('[]');
SELECT json_array_length('{}');
SELECT json_array_length('1');
SELECT jsonb_array_length('{}');
SELECT jsonb_array_length('"a"');
SELECT json_strip_nulls('{"a": null, "b": [null, {"c":null,"d" : 1.0}], "e": {"f":null}, "g":"x\u00e9"}'), jsonb_strip_nulls('{"a": null, "b": [null, {"c":null,"d" : 1.0}], "e": {"f":null}}'), json_strip_nulls('null'), jsonb_strip_nulls('[null, 1]'), json_strip_nulls('[ 1,  {} , []]');
SELECT jsonb_pretty('{"a":[1,{"b":null},[],{}],"c":"x","d":{"e":{"f":1}}}'), jsonb_pretty('1'), jsonb_pretty('[]'), jsonb_pretty('{}'), jsonb_pretty('[[],[[]]]');
SELECT json_object('{a,1,b,2}'), json_object('{{a,1},{b,NULL}}'), jsonb_object('{b,1,a,"x y"}'), json_object('{a,b}','{1,2}'), jsonb_object('{a,b}','{1,NULL}'), json_object('{}'), jsonb_object('{}');
SELECT json_object('{a}');
SELECT jsonb_object('{{a,b,c}}');
SELECT json_object('{NULL,a}');
SELECT jsonb_object('{a,b}','{1}');
SELECT json_object('{{a,b},{c,d}}','{1}');

-- values of other types as JSON
SELECT to_json(1), to_json(1.50), to_json('a"b'::text), to_json(true), to_json(NULL::int), to_json(ARRAY[1,NULL,3]), to_json(ARRAY[[1,2],[3,4]]), to_json('{"a" : 1}'::json), to_json('{"a" : 1}'::jsonb), to_json('{}'::int[]);
SELECT to_jsonb(1), to_jsonb(1.50), to_jsonb('a"b'::text), to_jsonb(true), to_jsonb(NULL::int), to_jsonb(ARRAY[1,NULL,3]), to_jsonb(ARRAY[[1,2],[3,4]]), to_jsonb('{"a" : 1}'::json), to_jsonb('{"a" : 1}'::jsonb), to_jsonb('{}'::int[]);
SELECT to_json('NaN'::float8), to_json('Infinity'::float4), to_jsonb('-Infinity'::float8), to_jsonb('NaN'::numeric), to_json(1e20::float8), to_jsonb(1e20::float8), to_json(0.1::float4), to_jsonb(1e-7::float8), to_json(-5::int2), to_jsonb(9223372036854775807);
SELECT to_json('2024-02-03'::date), to_json('2024-02-03 04:05:06.7'::timestamp), to_jsonb('2024-02-03 04:05:06'::timestamptz), to_json('infinity'::date), to_json('-infinity'::timestamptz), to_json('04:05:06'::time), to_json('1 day 2 hours'::interval), to_json('2024-02-03 BC'::timestamp), to_jsonb('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid), to_json('\x01ff'::bytea), to_json('ab'::char(4)), to_json('int4'::regtype), to_jsonb(1::oid), to_json('n'::name);
SET TIME ZONE 'Asia/Kolkata';
SELECT to_json('2024-02-03 04:05:06+00'::timestamptz), to_jsonb('2024-02-03 04:05:06.123456+00'::timestamptz), to_json(ARRAY['2024-02-03 04:05:06+00'::timestamptz]);
SET TIME ZONE 'America/New_York';
SELECT to_json('2024-02-03 04:05:06+00'::timestamptz), to_jsonb('0044-03-15 12:00:00+00 BC'::timestamptz);
SET TIME ZONE 'UTC';
SELECT to_json('a');
SELECT to_jsonb(row(1,'a')), to_json(row(1,NULL,row(true,ARRAY['x']))), row_to_json(row(1,'a'::text)), row_to_json(row(1,row(2,3)),true);
SELECT row_to_json(t), to_jsonb(t) FROM (VALUES (1,'x',NULL::int),(2,'y',3)) t(id,"na me",n);
SELECT row_to_json(s) FROM (SELECT 1 AS a, '{"k":1}'::jsonb AS b, ARRAY[1,2] AS c, '2024-01-01'::date AS d) s;
SELECT array_to_json(ARRAY[1,2,3]), array_to_json(ARRAY[[1,2],[3,4]], true), array_to_json(ARRAY['a','b']), array_to_json('{1,2}'::int[], false), array_to_json(ARRAY[row(1,2)], true), array_to_json(NULL::int[]);
SELECT json_build_array(1,'a',NULL,true,ARRAY[1,2],'{"x":1}'::jsonb,1.0), json_build_array(), jsonb_build_array(1,'a',NULL,true,ARRAY[1,2],'{"x":1}'::json,1.0), jsonb_build_array();
SELECT json_build_object('a',1,'b',ARRAY[1,2],3,'c'), json_build_object(), jsonb_build_object('a',1,'b',ARRAY[1,2]), jsonb_build_object(), jsonb_build_object('z',1,'a',2,'z',3), jsonb_build_object(1.5,true,'2024-01-01'::date,NULL), json_build_object(true, json_build_object('x', NULL));
SELECT json_build_object('a');
SELECT jsonb_build_object('a',1,'b');
SELECT json_build_object(NULL,1);
SELECT jsonb_build_object('a',1,NULL,1);
SELECT json_build_object(ARRAY[1],1);
SELECT jsonb_build_object('{}'::jsonb,1);
SELECT jsonb_build_object('{}'::json,1);
SELECT jsonb_build_object(row(1),1);

-- sets
SELECT * FROM json_each('{"a": 1, "b":  "x", "a":null, "é": {"c":1}}');
SELECT * FROM json_each_text('{"a": 1, "b":  "x", "a":null, "é": {"c":1}}');
SELECT * FROM jsonb_each('{"bb": 1, "c":  "x", "a":null}');
SELECT * FROM jsonb_each_text('{"bb": 1, "c":  "x", "a":null, "d":{"e":[1, 2]}}') AS t(k, v);
SELECT * FROM json_array_elements('[1,  "a", null, {"b" : 2}]');
SELECT * FROM json_array_elements_text('[1,  "a", null, {"b" : 2}]') x;
SELECT * FROM jsonb_array_elements('[1,  "a", null, {"b" : 2}]') x;
SELECT value, ordinality FROM jsonb_array_elements_text('[1,"a",null,{"b" : 2}]') WITH ORDINALITY;
SELECT x, n FROM jsonb_array_elements('[3,4]') WITH ORDINALITY AS t(x, n);
SELECT jsonb_array_elements('[1,2]'), json_object_keys('{"b":1,"a":2,"b":3}');
SELECT * FROM jsonb_object_keys('{"b":1,"a":2,"cc":3}');
SELECT k FROM jsonb_object_keys('{"b":1,"a":2}') k ORDER BY k DESC;
SELECT (jsonb_each('{"a":1,"b":2}')).*;
SELECT jsonb_each('{"a":1}'), json_each_text('{"a":"x y"}');
SELECT * FROM jsonb_each('{}'), jsonb_array_elements('[]');
SELECT json_each('[1]');
SELECT json_each('1');
SELECT jsonb_each('[1]');
SELECT jsonb_each_text('1');
SELECT json_array_elements('{}');
SELECT json_array_elements_text('1');
SELECT jsonb_array_elements('{}');
SELECT jsonb_array_elements('1');
SELECT json_object_keys('[]');
SELECT json_object_keys('1');
SELECT jsonb_object_keys('[]');
SELECT jsonb_object_keys('1');
SELECT * FROM jsonb_array_elements(NULL::jsonb);

-- aggregates
SELECT json_agg(x), jsonb_agg(x), json_agg(x ORDER BY x DESC), jsonb_agg(DISTINCT x), jsonb_object_agg('k',x) FROM (VALUES (1),(2),(1)) v(x);
SELECT json_agg(x), jsonb_agg(x), json_object_agg(x,1), jsonb_object_agg(x,1) FROM (VALUES ('a')) v(x) WHERE x = 'b';
SELECT json_agg(NULL::int), jsonb_agg(NULL::text), json_agg(t), jsonb_agg(t) FROM (VALUES (1,'a'),(2,NULL)) t(n,s);
SELECT json_agg(a), jsonb_agg(a) FROM (VALUES (ARRAY[1,2]),(NULL),(ARRAY[3])) v(a);
SELECT json_agg(j), jsonb_agg(j) FROM (VALUES ('{"a":  1}'::json),('[ ]')) v(j);
SELECT json_object_agg(k,v), jsonb_object_agg(k,v) FROM (VALUES ('b',1.50),('a',NULL),('b',3)) t(k,v);
SELECT json_object_agg(k,v), jsonb_object_agg(k,v) FROM (VALUES (1,true),(2,false)) t(k,v);
SELECT json_object_agg(k,v) FROM (VALUES ('b',1),(NULL,2)) t(k,v);
SELECT jsonb_object_agg(k,v) FROM (VALUES ('b',1),(NULL,2)) t(k,v);
SELECT x, jsonb_agg(x) OVER (ORDER BY x), json_agg(x) FILTER (WHERE x > 1) OVER (ORDER BY x) FROM generate_series(1,3) x;
SELECT g, jsonb_object_agg(k, v ORDER BY v DESC) FROM (VALUES (1,'a',1),(1,'b',2),(2,'a',3),(1,'a',4)) t(g,k,v) GROUP BY g ORDER BY g;

-- casts
SELECT '1.5'::jsonb::numeric, '1.5'::jsonb::int, '2.5'::jsonb::int8, '-3'::jsonb::int2, '1.1'::jsonb::float4, '1e3'::jsonb::float8, 'true'::jsonb::bool, '"a"'::jsonb::text, '{"a":1}'::json::jsonb, '{"b":1,"a":  2}'::jsonb::json, '{"a" : 1}'::json::text, '[1, 2]'::text::jsonb, '[1,2]'::varchar::json;
SELECT '"1"'::jsonb::int;
SELECT 'null'::jsonb::int;
SELECT '[1]'::jsonb::numeric;
SELECT '{}'::jsonb::bool;
SELECT 'true'::jsonb::int8;
SELECT '1'::jsonb::bool;
SELECT '40000'::jsonb::int2;
SELECT '3000000000'::jsonb::int;
SELECT '1e400'::jsonb::float8;
SELECT 1::jsonb;
SELECT true::json;
SELECT '1'::json::int;
SELECT '2024-01-01'::date::jsonb;

-- order
SELECT j FROM (VALUES ('null'::jsonb),('"a"'),('"b"'),('""'),('1'),('1.0'),('-1'),('10'),('true'),('false'),('[]'),('[1]'),('[1,2]'),('[0,5]'),('["a"]'),('[null]'),('[[]]'),('[{}]'),('{}'),('{"a":1}'),('{"b":0}'),('{"aa":0}'),('{"a":1,"b":2}'),('{"a":[]}'),('"aa"'),('"é"'),('[[1]]'),('[true]')) v(j) ORDER BY j, j::text;
SELECT j FROM (VALUES ('null'::jsonb),('"a"'),('1'),('[]'),('[1]'),('{}'),('true'),(NULL)) v(j) ORDER BY j DESC;
SELECT '1'::jsonb = '1.0', '{"a":1,"b":2}'::jsonb = '{"b":2,"a":1}', '[1,2]'::jsonb = '[2,1]', '[]'::jsonb < 'null', '[]'::jsonb < '{}', '[[]]'::jsonb > '[null]', '{"a":1}'::jsonb <> '{"a":2}', '"a"'::jsonb >= '"B"', '{"b":1}'::jsonb > '{"aa":1}', '1'::jsonb <= '"a"', jsonb_cmp('1','2'), jsonb_eq('1','1');
SELECT max(length(j::text)), count(*) FROM (VALUES ('1'::jsonb),('1.0'),('{"a":1}'),('{"a":1.00}'),('"x"'),(NULL),(NULL)) v(j) GROUP BY j ORDER BY j;
SELECT DISTINCT j FROM (VALUES ('{"a":1,"b":2}'::jsonb),('{"b":2,"a":1}'),('[1]')) v(j) ORDER BY 1;
SELECT '1'::jsonb IN ('2','1'), '[1]'::jsonb = ANY (ARRAY['[1]','{}']::jsonb[]), '1'::jsonb IS DISTINCT FROM '1', nullif('1'::jsonb,'1'), greatest('1'::jsonb,'"a"','[]'), least('1'::jsonb,'"a"','[]'), ARRAY['1','{}']::jsonb[] < ARRAY['2']::jsonb[];
SELECT a.j FROM (VALUES ('1'::jsonb),('{"a":1}')) a(j) JOIN (VALUES ('1.0'::jsonb),('{"a": 1.0}'),('2')) b(j) ON a.j = b.j ORDER BY 1;
SELECT '1'::jsonb UNION SELECT '1' UNION SELECT '2' ORDER BY 1;
SELECT '1'::jsonb EXCEPT SELECT '1';
SELECT '1'::json = '1'::json;
SELECT '1'::json = '1';
SELECT '1'::json IN ('1');
SELECT x FROM (VALUES ('1'::json)) v(x) ORDER BY x;
SELECT x FROM (VALUES ('1'::json)) v(x) GROUP BY x;
SELECT DISTINCT x FROM (VALUES ('1'::json)) v(x);
SELECT '1'::json UNION SELECT '2'::json;
SELECT '1'::json UNION ALL SELECT '2'::json;
SELECT count(DISTINCT x) FROM (VALUES ('1'::json)) v(x);
SELECT row_number() OVER (PARTITION BY x) FROM (VALUES ('1'::json)) v(x);
SELECT max(x) FROM (VALUES ('1'::jsonb)) v(x);

-- tables
CREATE TABLE docs (id int PRIMARY KEY, j jsonb, t json DEFAULT '{"d": 1}', d jsonb NOT NULL DEFAULT '[]');
INSERT INTO docs (id, j) VALUES (1, '{"name":"ann","tags":["x","y"],"age":30}'), (2, '{"name":"bob","age":25.50}'), (3, NULL), (4, '[1,2]'), (5, '"s"');
INSERT INTO docs VALUES (6, '{"name":"cy"}', '{"t":  1}', '{"d":true}');
INSERT INTO docs (id, j) VALUES (7, '{oops}');
INSERT INTO docs (id, j) VALUES (7, 7);
INSERT INTO docs (id, j, t) SELECT 8, '{"x":1}'::json, '{"y": 1}'::jsonb;
SELECT * FROM docs ORDER BY id;
SELECT id, j->>'name' AS name, (j->>'age')::numeric AS age FROM docs WHERE j ? 'name' ORDER BY j->>'name' DESC;
SELECT id FROM docs WHERE j @> '{"tags":["y"]}';
SELECT id, e FROM docs, jsonb_array_elements(CASE WHEN jsonb_typeof(j->'tags') = 'array' THEN j->'tags' ELSE '[]' END) e ORDER BY id, e;
UPDATE docs SET j = jsonb_set(j, '{age}', to_jsonb((j->>'age')::numeric + 1)) WHERE j ? 'age';
UPDATE docs SET j = j || '{"new":true}' WHERE id = 6;
UPDATE docs SET j = j - 'tags' WHERE id = 1 RETURNING j;
DELETE FROM docs WHERE j->>'name' = 'bob' RETURNING id, j;
SELECT id, j FROM docs ORDER BY j NULLS FIRST, id;
CREATE TABLE keyed (k jsonb PRIMARY KEY, v int);
INSERT INTO keyed VALUES ('1', 1), ('"a"', 2), ('{"a":[1,2]}', 3), ('[]', 4), ('null', 5), ('{"b":1.50}', 6), ('[1,"x"]', 7), ('true', 8);
INSERT INTO keyed VALUES ('1.0', 9);
INSERT INTO keyed VALUES ('{"a":[1.0,2.00]}', 9);
INSERT INTO keyed VALUES (NULL, 9);
INSERT INTO keyed VALUES ('1.00', 10) ON CONFLICT (k) DO UPDATE SET v = excluded.v RETURNING *;
SELECT * FROM keyed ORDER BY k;
SELECT * FROM keyed ORDER BY k DESC LIMIT 3;
SELECT v FROM keyed WHERE k = '{"b": 1.5}';
SELECT v FROM keyed WHERE k > '1' AND k < '[1,"x"]' ORDER BY k;
SELECT v FROM keyed WHERE k >= '[]' AND k <= '"a"' ORDER BY k;
SELECT v FROM keyed WHERE k IN ('null','[]','{}') ORDER BY k;
CREATE INDEX docs_j ON docs (j);
CREATE UNIQUE INDEX docs_d ON docs (d DESC, id);
SELECT id FROM docs WHERE j = '[1,2.0]';
SELECT id FROM docs WHERE j IS NULL;
CREATE INDEX docs_t ON docs (t);
CREATE TABLE bad (k json PRIMARY KEY);
CREATE TABLE bad (k json UNIQUE);
ALTER TABLE docs ADD COLUMN n jsonb DEFAULT '{"n":[1, 2.50]}';
SELECT id, n FROM docs ORDER BY id LIMIT 2;
ALTER TABLE docs ALTER COLUMN t TYPE jsonb;
ALTER TABLE docs ADD CHECK (jsonb_typeof(d) IN ('array','object'));
INSERT INTO docs (id, d) VALUES (20, '1');
SELECT id, t FROM docs ORDER BY id;
CREATE VIEW names AS SELECT id, j->>'name' AS name, j #> '{age}' AS age FROM docs WHERE j ? 'name';
SELECT * FROM names ORDER BY id;
CREATE TABLE made AS SELECT id, j, to_json(id) AS q FROM docs;
\d made
\d keyed
SELECT column_name, data_type, udt_name FROM information_schema.columns WHERE table_name = 'docs' ORDER BY ordinal_position;
COPY (SELECT id, j, t FROM docs ORDER BY id) TO STDOUT;
COPY (SELECT id, j FROM docs ORDER BY id LIMIT 2) TO STDOUT (FORMAT csv);
COPY keyed FROM STDIN;
{"copied": "a\\tb"}	100
[1, 2, 3]	101
\.
COPY keyed FROM STDIN;
{"bad"	1
\.
SELECT * FROM keyed WHERE v >= 100 ORDER BY v;
PREPARE p(jsonb, text) AS SELECT $1 -> $2, $1 ->> 'a', $1 @> '{"a":1}';
EXECUTE p('{"a":1}', 'a');
EXECUTE p('{"a":', 'a');
SELECT v || '{"x":1}' FROM (VALUES (ARRAY['1']::jsonb[])) t(v);
SELECT ARRAY[]::json[] || '1'::json, array_agg(j) FROM (VALUES ('1'::jsonb),('[]')) t(j);
SELECT array_position(ARRAY['1','2']::jsonb[], '2.0'), ARRAY['1','2']::jsonb[] @> ARRAY['2']::jsonb[];
SELECT oid, typname, typarray, typcategory, typlen FROM pg_type WHERE typname IN ('json','jsonb','_json','_jsonb') ORDER BY oid;
SELECT castsource::regtype, casttarget::regtype, castcontext, castmethod FROM pg_cast WHERE castsource IN ('json'::regtype,'jsonb'::regtype) ORDER BY 1, 2;
SELECT oprname, oprleft::regtype, oprright::regtype, oprresult::regtype, oprcode FROM pg_operator WHERE oprleft IN ('json'::regtype,'jsonb'::regtype) AND oprname NOT IN ('@?','@@') ORDER BY oprleft, oprname, oprright;
