/* SPDX-License-Identifier: MIT
 * Typed getters: one key of one object, its type and its range. */
#include <inttypes.h>

#include "json.h"

static const char *type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

/* *v = the value, or NULL where it is absent or null. */
static enum sonde_code look_up(const json_t *obj, const char *key, bool required, const char *what,
                               const json_t **v, sonde_err *err)
{
    if (!json_is_object(obj))
        return sonde_fail(err, SONDE_E_INPUT, "%s: an object with the key '%s' is expected%s%s", what, key,
                          obj ? ", this is " : "", obj ? type_of(obj) : "");
    *v = json_object_get(obj, key);
    if (json_is_null(*v))
        *v = NULL;
    if (!*v && required)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the key '%s' is missing", what, key);
    return SONDE_OK;
}

static enum sonde_code wrong_type(const json_t *v, const char *key, const char *wanted, const char *what,
                                  sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s: '%s' must be %s, it is %s", what, key, wanted, type_of(v));
}

enum sonde_code sonde_json_int(const json_t *obj, const char *key, int64_t lo, int64_t hi,
                               const int64_t *fallback, const char *what, int64_t *out, sonde_err *err)
{
    const json_t *v = NULL;
    enum sonde_code rc = look_up(obj, key, !fallback, what, &v, err);
    if (rc != SONDE_OK)
        return rc;
    if (!v) {
        *out = *fallback;
        return SONDE_OK;
    }
    if (!json_is_integer(v))
        return wrong_type(v, key, "an integer", what, err);
    int64_t i = json_integer_value(v);
    if (i < lo || i > hi)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: '%s' is %" PRId64 ", it must be between %" PRId64 " and %" PRId64, what, key,
                          i, lo, hi);
    *out = i;
    return SONDE_OK;
}

enum sonde_code sonde_json_double(const json_t *obj, const char *key, double lo, double hi,
                                  const double *fallback, const char *what, double *out, sonde_err *err)
{
    const json_t *v = NULL;
    enum sonde_code rc = look_up(obj, key, !fallback, what, &v, err);
    if (rc != SONDE_OK)
        return rc;
    if (!v) {
        *out = *fallback;
        return SONDE_OK;
    }
    if (!json_is_number(v))
        return wrong_type(v, key, "a number", what, err);
    double x = json_number_value(v);
    if (!(x >= lo && x <= hi))
        return sonde_fail(err, SONDE_E_INPUT, "%s: '%s' is %g, it must be between %g and %g", what, key, x,
                          lo, hi);
    *out = x;
    return SONDE_OK;
}

enum sonde_code sonde_json_bool(const json_t *obj, const char *key, bool fallback, const char *what,
                                bool *out, sonde_err *err)
{
    const json_t *v = NULL;
    enum sonde_code rc = look_up(obj, key, false, what, &v, err);
    if (rc != SONDE_OK)
        return rc;
    if (v && !json_is_boolean(v))
        return wrong_type(v, key, "true or false", what, err);
    *out = v ? json_is_true(v) : fallback;
    return SONDE_OK;
}

enum sonde_code sonde_json_string(const json_t *obj, const char *key, const char *fallback, const char *what,
                                  const char **out, sonde_err *err)
{
    const json_t *v = NULL;
    enum sonde_code rc = look_up(obj, key, false, what, &v, err);
    if (rc != SONDE_OK)
        return rc;
    if (v && !json_is_string(v))
        return wrong_type(v, key, "a string", what, err);
    *out = v ? json_string_value(v) : fallback;
    return SONDE_OK;
}
