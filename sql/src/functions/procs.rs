//! Functions by PostgreSQL's oids: what regproc prints and `pg_proc.oid` shows.
//!
//! Generated from the `pg_proc` of PostgreSQL 15: the input and output functions of our types, and every function of the registry
//! that PostgreSQL has too. In the order of oids.

use crate::types::Type;

/// A function's identity.
pub struct Proc {
    /// `pg_proc.oid`.
    pub oid: u32,
    /// `pg_proc.proname`.
    pub name: &'static str,
    /// Oids of the argument types.
    pub arg_oids: &'static [u32],
}

impl Proc {
    /// The argument types.
    pub fn args(&self) -> impl Iterator<Item = Type> {
        self.arg_oids.iter().map(|o| Type(*o))
    }
}

const fn p(oid: u32, name: &'static str, arg_oids: &'static [u32]) -> Proc {
    Proc { oid, name, arg_oids }
}

/// By oid.
pub fn by_oid(oid: u32) -> Option<&'static Proc> {
    PROCS.binary_search_by_key(&oid, |p| p.oid).ok().map(|i| &PROCS[i])
}

/// All of this name.
pub fn named(name: &str) -> impl Iterator<Item = &'static Proc> {
    PROCS.iter().filter(move |p| p.name == name)
}

/// The oid of the function with this name and these argument types, if PostgreSQL has it.
pub fn oid_of(name: &str, args: &[Type]) -> Option<u32> {
    named(name).find(|p| p.args().eq(args.iter().copied())).map(|p| p.oid)
}

/// All of them.
#[rustfmt::skip]
pub static PROCS: &[Proc] = &[
    p(31, "byteaout", &[17]), p(33, "charout", &[18]), p(34, "namein", &[2275]), p(35, "nameout", &[19]), p(38, "int2in", &[2275]),
    p(39, "int2out", &[21]), p(40, "int2vectorin", &[2275]), p(41, "int2vectorout", &[22]), p(42, "int4in", &[2275]),
    p(43, "int4out", &[23]), p(44, "regprocin", &[2275]), p(45, "regprocout", &[24]), p(46, "textin", &[2275]), p(47, "textout", &[25]),
    p(48, "tidin", &[2275]), p(49, "tidout", &[27]), p(50, "xidin", &[2275]), p(51, "xidout", &[28]), p(52, "cidin", &[2275]),
    p(53, "cidout", &[29]), p(54, "oidvectorin", &[2275]), p(55, "oidvectorout", &[30]), p(109, "unknownin", &[2275]),
    p(110, "unknownout", &[705]), p(195, "pg_node_tree_in", &[2275]), p(196, "pg_node_tree_out", &[194]),
    p(197, "pg_node_tree_recv", &[2281]), p(198, "pg_node_tree_send", &[194]), p(200, "float4in", &[2275]), p(201, "float4out", &[700]),
    p(214, "float8in", &[2275]), p(215, "float8out", &[701]), p(460, "int8in", &[2275]), p(461, "int8out", &[20]),
    p(750, "array_in", &[2275, 26, 23]), p(751, "array_out", &[2277]), p(1031, "aclitemin", &[2275]), p(1032, "aclitemout", &[1033]),
    p(1044, "bpcharin", &[2275, 26, 23]), p(1045, "bpcharout", &[1042]), p(1046, "varcharin", &[2275, 26, 23]),
    p(1047, "varcharout", &[1043]), p(1084, "date_in", &[2275]), p(1085, "date_out", &[1082]), p(1143, "time_in", &[2275, 26, 23]),
    p(1144, "time_out", &[1083]), p(1150, "timestamptz_in", &[2275, 26, 23]), p(1151, "timestamptz_out", &[1184]),
    p(1160, "interval_in", &[2275, 26, 23]), p(1161, "interval_out", &[1186]), p(1242, "boolin", &[2275]), p(1243, "boolout", &[16]),
    p(1244, "byteain", &[2275]), p(1245, "charin", &[2275]), p(1312, "timestamp_in", &[2275, 26, 23]), p(1313, "timestamp_out", &[1114]),
    p(1701, "numeric_in", &[2275, 26, 23]), p(1702, "numeric_out", &[1700]), p(1798, "oidin", &[2275]), p(1799, "oidout", &[26]),
    p(2212, "regprocedurein", &[2275]), p(2213, "regprocedureout", &[2202]), p(2214, "regoperin", &[2275]), p(2215, "regoperout", &[2203]),
    p(2216, "regoperatorin", &[2275]), p(2217, "regoperatorout", &[2204]), p(2218, "regclassin", &[2275]), p(2219, "regclassout", &[2205]),
    p(2220, "regtypein", &[2275]), p(2221, "regtypeout", &[2206]), p(2290, "record_in", &[2275, 26, 23]), p(2291, "record_out", &[2249]),
    p(2292, "cstring_in", &[2275]), p(2293, "cstring_out", &[2275]), p(2294, "any_in", &[2275]), p(2295, "any_out", &[2276]),
    p(2296, "anyarray_in", &[2275]), p(2297, "anyarray_out", &[2277]), p(2298, "void_in", &[2275]), p(2299, "void_out", &[2278]),
    p(2300, "trigger_in", &[2275]), p(2301, "trigger_out", &[2279]), p(2302, "language_handler_in", &[2275]),
    p(2303, "language_handler_out", &[2280]), p(2304, "internal_in", &[2275]), p(2305, "internal_out", &[2281]),
    p(2312, "anyelement_in", &[2275]), p(2313, "anyelement_out", &[2283]), p(2400, "array_recv", &[2281, 26, 23]),
    p(2401, "array_send", &[2277]), p(2402, "record_recv", &[2281, 26, 23]), p(2403, "record_send", &[2249]), p(2404, "int2recv", &[2281]),
    p(2405, "int2send", &[21]), p(2406, "int4recv", &[2281]), p(2407, "int4send", &[23]), p(2408, "int8recv", &[2281]),
    p(2409, "int8send", &[20]), p(2410, "int2vectorrecv", &[2281]), p(2411, "int2vectorsend", &[22]), p(2412, "bytearecv", &[2281]),
    p(2413, "byteasend", &[17]), p(2414, "textrecv", &[2281]), p(2415, "textsend", &[25]), p(2416, "unknownrecv", &[2281]),
    p(2417, "unknownsend", &[705]), p(2418, "oidrecv", &[2281]), p(2419, "oidsend", &[26]), p(2420, "oidvectorrecv", &[2281]),
    p(2421, "oidvectorsend", &[30]), p(2422, "namerecv", &[2281]), p(2423, "namesend", &[19]), p(2424, "float4recv", &[2281]),
    p(2425, "float4send", &[700]), p(2426, "float8recv", &[2281]), p(2427, "float8send", &[701]), p(2430, "bpcharrecv", &[2281, 26, 23]),
    p(2431, "bpcharsend", &[1042]), p(2432, "varcharrecv", &[2281, 26, 23]), p(2433, "varcharsend", &[1043]), p(2434, "charrecv", &[2281]),
    p(2435, "charsend", &[18]), p(2436, "boolrecv", &[2281]), p(2437, "boolsend", &[16]), p(2438, "tidrecv", &[2281]),
    p(2439, "tidsend", &[27]), p(2440, "xidrecv", &[2281]), p(2441, "xidsend", &[28]), p(2442, "cidrecv", &[2281]),
    p(2443, "cidsend", &[29]), p(2444, "regprocrecv", &[2281]), p(2445, "regprocsend", &[24]), p(2446, "regprocedurerecv", &[2281]),
    p(2447, "regproceduresend", &[2202]), p(2448, "regoperrecv", &[2281]), p(2449, "regopersend", &[2203]),
    p(2450, "regoperatorrecv", &[2281]), p(2451, "regoperatorsend", &[2204]), p(2452, "regclassrecv", &[2281]),
    p(2453, "regclasssend", &[2205]), p(2454, "regtyperecv", &[2281]), p(2455, "regtypesend", &[2206]),
    p(2460, "numeric_recv", &[2281, 26, 23]), p(2461, "numeric_send", &[1700]), p(2468, "date_recv", &[2281]),
    p(2469, "date_send", &[1082]), p(2470, "time_recv", &[2281, 26, 23]), p(2471, "time_send", &[1083]),
    p(2474, "timestamp_recv", &[2281, 26, 23]), p(2475, "timestamp_send", &[1114]), p(2476, "timestamptz_recv", &[2281, 26, 23]),
    p(2477, "timestamptz_send", &[1184]), p(2478, "interval_recv", &[2281, 26, 23]), p(2479, "interval_send", &[1186]),
    p(2500, "cstring_recv", &[2281]), p(2501, "cstring_send", &[2275]), p(2502, "anyarray_recv", &[2281]),
    p(2503, "anyarray_send", &[2277]), p(2777, "anynonarray_in", &[2275]), p(2778, "anynonarray_out", &[2776]),
    p(2903, "intervaltypmodin", &[1263]), p(2904, "intervaltypmodout", &[23]), p(2905, "timestamptypmodin", &[1263]),
    p(2906, "timestamptypmodout", &[23]), p(2907, "timestamptztypmodin", &[1263]), p(2908, "timestamptztypmodout", &[23]),
    p(2909, "timetypmodin", &[1263]), p(2910, "timetypmodout", &[23]), p(2913, "bpchartypmodin", &[1263]),
    p(2914, "bpchartypmodout", &[23]), p(2915, "varchartypmodin", &[1263]), p(2916, "varchartypmodout", &[23]),
    p(2917, "numerictypmodin", &[1263]), p(2918, "numerictypmodout", &[23]), p(2952, "uuid_in", &[2275]), p(2953, "uuid_out", &[2950]),
    p(2961, "uuid_recv", &[2281]), p(2962, "uuid_send", &[2950]), p(3120, "void_recv", &[2281]), p(3121, "void_send", &[2278]),
    p(3594, "event_trigger_in", &[2275]), p(3595, "event_trigger_out", &[3838]), p(4084, "regnamespacein", &[2275]),
    p(4085, "regnamespaceout", &[4089]), p(4087, "regnamespacerecv", &[2281]), p(4088, "regnamespacesend", &[4089]),
    p(4092, "regroleout", &[4096]), p(4094, "regrolerecv", &[2281]), p(4095, "regrolesend", &[4096]), p(4098, "regrolein", &[2275]),
    p(5086, "anycompatible_in", &[2275]), p(5087, "anycompatible_out", &[5077]), p(5088, "anycompatiblearray_in", &[2275]),
    p(5089, "anycompatiblearray_out", &[5078]), p(5090, "anycompatiblearray_recv", &[2281]), p(5091, "anycompatiblearray_send", &[5078]),
    p(5092, "anycompatiblenonarray_in", &[2275]), p(5093, "anycompatiblenonarray_out", &[5079]),
];
