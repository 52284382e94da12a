/* SPDX-License-Identifier: MIT
 * What a dictionary knows beside its numbers. */
#include <string.h>

#include "format_impl.h"

bool sonde_dict_is_transcoder(const sonde_dict *d)
{
    const char *in = json_string_value(json_object_get(d->meta, "hook_name"));
    const char *out = json_string_value(json_object_get(d->meta, "hook_name_out"));
    return d->d_in != d->d_out || d->w_skip || (out && (!in || strcmp(in, out) != 0)) ||
           (d->trained_as && strstr(d->trained_as, "transcoder"));
}

enum sonde_code sonde_dict_text(sonde_dict *d, const char *s, const char **out, sonde_err *err)
{
    *out = s ? sonde_arena_strndup(d->arena, s, strlen(s), err) : NULL;
    return s && !*out ? SONDE_E_MEMORY : SONDE_OK;
}

enum sonde_code sonde_dict_set_meta(sonde_dict *d, const char *key, json_t *value, sonde_err *err)
{
    if (json_is_null(value))
        return SONDE_OK;
    if (json_object_set_new(d->meta, key, value))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the metadata '%s'", key);
    return SONDE_OK;
}
