// Whether a server answers, without a client library.
#pragma once

#include <string>

#include "tools/base.h"

namespace assay::tools {

struct HostPort {
  std::string host;
  std::string port;
};

/// Host and port of postgresql://user@host:port/name or of "host=… port=…"; the defaults of PostgreSQL where absent.
HostPort database_address(std::string_view url);

/// Connects and asks for TLS as every client does first; a PostgreSQL server answers with one letter. No password is sent.
/// Errors: kUnreachable with the step that failed.
Result<void> probe_postgres(const HostPort& address, int timeout_ms);

}  // namespace assay::tools
