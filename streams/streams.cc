#include "streams/log.h"
