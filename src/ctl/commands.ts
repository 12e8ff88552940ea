import { attach } from './attach.js';
import { cleanup } from './cleanup.js';
import type { Command } from './command.js';
import { completionCommand } from './completion.js';
import { configCheck } from './config-check.js';
import { configGet } from './config-get.js';
import { configHistory } from './config-history.js';
import { configSet } from './config-set.js';
import { detach } from './detach.js';
import { dockerDisable } from './docker-disable.js';
import { dockerEnable } from './docker-enable.js';
import { dockerFollow } from './docker-follow.js';
import { dockerNetworks } from './docker-networks.js';
import { dockerNetworksCreate } from './docker-networks-create.js';
import { dockerNetworksRelease } from './docker-networks-release.js';
import { dockerNetworksRemove } from './docker-networks-remove.js';
import { dockerNetworksRoutes } from './docker-networks-routes.js';
import { dockerOpts } from './docker-opts.js';
import { dockerStatus } from './docker-status.js';
import { doctor } from './doctor.js';
import { leasesList } from './leases-list.js';
import { leasesRelease } from './leases-release.js';
import { leasesReserve } from './leases-reserve.js';
import { leasesShow } from './leases-show.js';
import { leasesUnreserve } from './leases-unreserve.js';
import { ping } from './ping.js';
import { logLevel } from './log-level.js';
import { status } from './status.js';

/** Every command, in the order of help and manual. */
export const COMMANDS: readonly Command[] = [
  configGet,
  configSet,
  configCheck,
  configHistory,
  leasesList,
  leasesShow,
  leasesReserve,
  leasesUnreserve,
  leasesRelease,
  status,
  ping,
  logLevel,
  doctor,
  cleanup,
  dockerEnable,
  dockerDisable,
  dockerStatus,
  dockerFollow,
  dockerOpts,
  dockerNetworks,
  dockerNetworksCreate,
  dockerNetworksRemove,
  dockerNetworksRelease,
  dockerNetworksRoutes,
  attach,
  detach,
  completionCommand(() => COMMANDS),
];
