/* SPDX-License-Identifier: MIT */
#include "../file/json.h"
#include "identity.h"

#include <jansson.h>
#include <string.h>

#include "../base/hash.h"

enum sonde_code sonde_model_identity(const sonde_model *m, char **json, sonde_err *err)
{
    json_t *all = json_object();
    for (size_t i = 0; all && i < m->file->n_maps; i++) {
        const sonde_map *map = m->file->map[i];
        const char *slash = strrchr(map->path, '/');
        sonde_sha256 s;
        char hex[65];
        sonde_sha256_begin(&s);
        for (size_t at = 0, n; at < map->n_bytes; at += n) { /* in pieces, so that the pages may go again */
            n = map->n_bytes - at < (16u << 20) ? map->n_bytes - at : 16u << 20;
            sonde_sha256_add(&s, map->data + at, n);
            sonde_map_forget(map, at, n);
        }
        sonde_sha256_end(&s, hex);
        json_object_set_new(all, slash ? slash + 1 : map->path, json_string(hex));
    }
    *json = all ? sonde_json_text(all, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(all);
    return *json ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its hashes", m->path);
}
