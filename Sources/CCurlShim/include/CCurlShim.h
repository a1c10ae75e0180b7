#pragma once
#include <curl/curl.h>

// libcurl's setopt and getinfo are variadic, which Swift cannot call. One typed function per argument kind.

CURLcode hearth_curl_set_long(CURL *handle, CURLoption option, long value);
CURLcode hearth_curl_set_offset(CURL *handle, CURLoption option, curl_off_t value);
CURLcode hearth_curl_set_string(CURL *handle, CURLoption option, const char *value);
CURLcode hearth_curl_set_pointer(CURL *handle, CURLoption option, void *value);
CURLcode hearth_curl_set_list(CURL *handle, CURLoption option, struct curl_slist *value);

typedef size_t (*hearth_curl_transfer)(char *bytes, size_t size, size_t count, void *context);
CURLcode hearth_curl_set_transfer(CURL *handle, CURLoption option, hearth_curl_transfer function);

typedef int (*hearth_curl_progress)(void *context, curl_off_t download_total, curl_off_t downloaded,
                                    curl_off_t upload_total, curl_off_t uploaded);
CURLcode hearth_curl_set_progress(CURL *handle, hearth_curl_progress function);

long hearth_curl_status(CURL *handle);
