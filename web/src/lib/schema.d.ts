// Made by tools/types.mjs from proto/openapi.json.

export interface paths {
    "/agent/lifeboat": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The executable of this server, which is the agent's too. */
        get: operations["executable"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/agent/lifeboat.sha256": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** SHA-256 of the executable, as `sha256sum` reads it. */
        get: operations["executableDigest"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/backups": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Backups of the vault's database, sealed with the vault key, in the store; the newest first. */
        get: operations["listBackups"];
        put?: never;
        /** Makes a backup now, beside those that the server makes by itself. */
        post: operations["make"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/login": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Begins a session. */
        post: operations["login"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/logout": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Ends the session. */
        post: operations["logout"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/openapi.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** This document. */
        get: operations["openapiDocument"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/password": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Changes the caller's password. Other sessions of the user end. */
        post: operations["password"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The vaults in which the caller has a role. */
        get: operations["listVaults"];
        put?: never;
        /** Makes a vault with the default policy; its maker becomes its Owner. For Owners of the vault `default`. */
        post: operations["createVault"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Removes a vault with its history, its roles and its tokens; refused while a machine is joined to it, with the list of
         *     what is in the way.
         */
        delete: operations["removeVault"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/alert-deliveries": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What was sent and what waits to be sent, the newest first. */
        get: operations["deliveries"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/alert-settings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Who is told of what is wrong, and how. */
        get: operations["settings"];
        /** Replaces the settings. A channel that is new hears of what is on already. */
        put: operations["setAlertSettings"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/alert-settings/test": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Sends a test message now and says what became of it. */
        post: operations["testAlertSettings"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/audit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Who changed what from where, the newest first. In the vault `default` also what belongs to no vault. */
        get: operations["audit"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/capacity": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What bandwidth, disk space and schedule the site needs, by its history. */
        get: operations["capacity"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Events, the newest first. */
        get: operations["listEvents"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/events/stream": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Live view: server-sent events `item`, `job`, `event`, `machine`, `policy`, each with the object as it is now. After a
         *     break send `Last-Event-ID`; what was missed comes first. `reset`: too much was missed, read the lists again.
         */
        get: operations["streamEvents"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/health-errors": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Health errors of all machines and of the site, the worst first. */
        get: operations["healthErrors"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/jobs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Jobs, the newest first. */
        get: operations["listJobs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/jobs/export": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Jobs as one document, for a spreadsheet or an archive. */
        get: operations["exportJobs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/jobs/{job}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One job with its tasks. */
        get: operations["showJob"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/jobs/{job}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Asks a job to stop and to undo what it did; refused past its point of no return. */
        post: operations["cancelJob"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/jobs/{job}/restart": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Gives the order of a job that failed or was cancelled once more, as a new job that names the old one. It is admitted
         *     like any order.
         */
        post: operations["restartJob"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/jobs/{job}/resume": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Takes a job up again that is suspended and waits for a person. A job that does not wait is refused. */
        post: operations["resumeJob"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/join-tokens": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Join tokens that were made, without the tokens themselves. */
        get: operations["joinTokens"];
        put?: never;
        /** Makes a join token: good for one machine, for a while. With the command to run on the machine. */
        post: operations["createJoinToken"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/join-tokens/{token}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Takes a join token back. A machine that joined with it stays. */
        delete: operations["revokeJoinToken"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/machines": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Machines that joined, by name. */
        get: operations["listMachines"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/machines/{machine}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One machine, by name or id. */
        get: operations["showMachine"];
        put?: never;
        post?: never;
        /**
         * Removes a machine that is not replicated from the vault: its certificates are revoked and its name is free. Its jobs
         *     and events stay.
         */
        delete: operations["removeMachine"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/machines/{machine}/agent-update": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What became of the last order to update the agent. */
        get: operations["showAgentUpdate"];
        put?: never;
        /**
         * Orders the agent to update itself to the server's version. It rolls back by itself when the new one does not reach the
         *     server; no reboot, nothing is compared or copied again.
         */
        post: operations["orderAgentUpdate"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/machines/{machine}/rename": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Gives a machine another name; also while it is replicated. */
        post: operations["renameMachine"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/machines/{machine}/revoke": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Revokes a machine's certificates: its agent is refused until it joins again with the passphrase. */
        post: operations["revokeMachine"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/maintenance-windows": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Maintenance windows, the newest first. */
        get: operations["listMaintenanceWindows"];
        put?: never;
        /** Plans a maintenance window: of a machine or of all of the vault. What is still wrong at its end is told then. */
        post: operations["createMaintenanceWindow"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/maintenance-windows/{window}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Ends a maintenance window now; one that has not begun is removed. */
        delete: operations["removeMaintenanceWindow"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/network-mappings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Which networks of the target stand for which of the source. */
        get: operations["mappings"];
        /** Maps a network of the source: the default of machines whose replication is enabled from now on. */
        put: operations["map"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/networks": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Networks of the target site, by name. */
        get: operations["listNetworks"];
        put?: never;
        /** Makes a network: a name for something of the target's host; nothing is made there yet. */
        post: operations["createNetwork"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/networks/{network}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One network. */
        get: operations["showNetwork"];
        /** Changes a network, for failovers from now on. What is left out gets the default. */
        put: operations["updateNetwork"];
        post?: never;
        /** Removes a network that nothing is mapped to and no machine is to be put in. */
        delete: operations["removeNetwork"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/passphrase": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The passphrase that machines join with. */
        get: operations["passphrase"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/passphrase/rotate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Makes a new passphrase; machines that have joined are not touched. */
        post: operations["rotatePassphrase"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/plan-scripts": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Scripts that plans may use: executables in one folder of the server, which only its administrator fills. */
        get: operations["scripts"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/policies": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Policies, by name. */
        get: operations["listPolicies"];
        put?: never;
        /** Makes a policy, and with it `NAME-failback`. */
        post: operations["createPolicy"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/policies/{policy}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One policy. */
        get: operations["showPolicy"];
        /** Changes a policy, also for the items that follow it. What is left out gets the default. */
        put: operations["updatePolicy"];
        post?: never;
        /** Removes a policy that no item follows, with its twin. */
        delete: operations["removePolicy"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Recovery plans, by name. */
        get: operations["listRecoveryPlans"];
        put?: never;
        /** Makes a plan. */
        post: operations["createRecoveryPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One plan, by name or id. */
        get: operations["showRecoveryPlan"];
        /** Changes a plan, for runs from now on. What is left out gets the default; the name stays. */
        put: operations["updateRecoveryPlan"];
        post?: never;
        /** Removes a plan; its machines stay as they are. Refused while a run of it is not over. */
        delete: operations["removeRecoveryPlan"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/cancel-failover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Takes the failover of all machines back, before it is committed; what they wrote since is discarded. */
        post: operations["cancelFailoverOfPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/checks": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Checks a plan against the site as it is now. Changes nothing. */
        get: operations["checks"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/commit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Commits the failover of all machines of the plan. */
        post: operations["commitPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/failback": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Brings all machines of the plan home, group by group. */
        post: operations["failbackOfPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/planned-failover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Shuts the plan's machines down at the source, group by group, and starts them at the target without loss. */
        post: operations["plannedFailoverOfPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/reprotect": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Replicates all machines of the plan in the other direction from now on. Each is received by itself: `lifeboat agent receive`. */
        post: operations["reprotectPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Runs of a plan, the newest first. */
        get: operations["listRuns"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One run with its steps; `latest` is the newest. */
        get: operations["showRun"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Ends the run for good. Machines' jobs that can be cancelled are; what was started stays, until it is cleaned up. */
        post: operations["cancelPlanRun"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}/resume": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** A run that was stopped goes on; a manual action is done; a failed step is tried again. */
        post: operations["resumePlanRun"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}/skip": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Goes on without a step that waits, has failed, or is an action under way. */
        post: operations["skipStepOfPlanRun"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/runs/{run}/stop": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Nothing new begins; what is under way goes on to its end. Resume lets it go on. */
        post: operations["stopPlanRun"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/test-failover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Starts copies of the plan's machines, group by group, in isolated networks that the run's machines share. */
        post: operations["testFailoverOfPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/test-failover-cleanup": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Removes the machines of a test, the last group first. */
        post: operations["testFailoverCleanupOfPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/recovery-plans/{plan}/unplanned-failover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Starts the plan's machines at the target for real, group by group, and fences their sources. */
        post: operations["unplannedFailoverOfPlan"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/registration-keys": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Registration keys that were made, without the keys themselves. */
        get: operations["registrationKeys"];
        put?: never;
        /** Makes a registration key: it lets one machine join this vault, within five days, with nothing but its file. */
        post: operations["createRegistrationKey"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/registration-keys/{key}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Takes a registration key back. */
        delete: operations["revokeRegistrationKey"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Machines under replication, by name. */
        get: operations["listReplicatedItems"];
        put?: never;
        /** Enables replication of a machine. */
        post: operations["enableReplicatedItem"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One replicated item, by name or id. */
        get: operations["showReplicatedItem"];
        put?: never;
        post?: never;
        /**
         * Disables replication of a machine: its replica and all its recovery points are removed, unless they are kept. Of a machine
         *     that is not protected any more the points that were kept are removed.
         */
        delete: operations["disableReplicatedItem"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/cancel-failover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Takes an uncommitted failover or failback back: the machine goes on where it was before. What was written since is
         *     discarded.
         */
        post: operations["cancelFailover"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/change-recovery-point": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Starts the failed-over machine from another point, before the commit. What it wrote since is discarded with its disks;
         *     the points that were made of it stay until then.
         */
        post: operations["changeRecoveryPoint"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/commit": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Ends the choice of the recovery point: the machine at the target is the machine from now on. */
        post: operations["commitReplicatedItem"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/complete-migration": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Ends the replication of a hydrated machine: it stays at the target, its source is fenced for good, its recovery points are
         *     removed or kept.
         */
        post: operations["completeMigration"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/disks": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Includes or excludes disks while the machine is protected. An excluded disk leaves later recovery points at once; the
         *     older ones keep it. An included disk is copied first: no new point is made meanwhile, failover uses the points there
         *     are, and from the first point that holds all disks on only such points are offered.
         */
        put: operations["setDisks"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/failback": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Brings a reprotected machine home: it is stopped at the target, the receiver takes what it wrote last and compares its
         *     disks as a whole. Only then is it home.
         */
        post: operations["failback"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/failover-preview": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A dry run: the machine that a failover or a failback would start now, its networks, and how it comes by its addresses. Changes nothing. */
        get: operations["preview"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/hydrate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Makes the disks of a machine that stays at the target files of the target, while it runs on. From then on it needs neither
         *     its replica nor this server, and no recovery points are made of it any more. Cancelled or failed, it runs on as before.
         */
        post: operations["hydrate"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/planned-failover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Brings the source to rest, takes what it wrote last, starts the machine at the target and fences the source. Nothing is
         *     lost, or it does not happen.
         */
        post: operations["plannedFailover"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/policy": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** Lets an item follow another policy from now on: retention and health at once, the agent with its next heartbeat. */
        put: operations["setPolicy"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/recovery-points": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Recovery points of an item, the newest first. */
        get: operations["listRecoveryPoints"];
        put?: never;
        /**
         * Orders a recovery point at once. The agent takes the order with its next heartbeat; the job is over when the point is at the
         *     target.
         */
        post: operations["createRecoveryPoint"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/reprotect": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Replicates in the other direction from now on. Towards home `lifeboat agent receive` takes the replica; towards the
         *     target the agent ships again, beginning with a comparison.
         */
        post: operations["reprotect"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/resynchronize": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Orders a comparison of all disks with the replica; only what differs is shipped. The agent takes the order with its
         *     next heartbeat; the job is over when the recovery point that ends the comparison is at the target.
         */
        post: operations["resynchronizeReplicatedItem"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/series": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** RPO, throughput, churn and freeze of an item over the last hour, day, week or month. */
        get: operations["series"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The machine that a failover or a test failover started. */
        get: operations["targetMachine"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine/console": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The machine's screen, keyboard and mouse: VNC (RFB 3.8, no password) over a WebSocket of binary frames. */
        get: operations["console"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine/screenshot": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** A picture of its screen. */
        get: operations["screenshot"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine/serial-log": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** What it wrote to its serial port: the last MiB. */
        get: operations["serialLog"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/target-machine/start": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Starts the machine of a failover again that has stopped, with its disks as it left them; nothing happens to one that runs. */
        post: operations["startMachine"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/target-settings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** Changes how the machine is started at the target; holds for the next failover. */
        put: operations["setTarget"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/test-failover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Starts a copy of the machine beside the running one; replication goes on. */
        post: operations["testFailover"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/test-failover-cleanup": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Removes the machine of a test failover. Only then does the test count as performed. */
        post: operations["testFailoverCleanup"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replicated-items/{item}/unplanned-failover": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Starts the machine at the target for real and fences the source. */
        post: operations["unplannedFailover"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replication-groups": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Replication groups, by name. */
        get: operations["listReplicationGroups"];
        put?: never;
        /** Makes a replication group. Its machines share recovery points from the next heartbeats on. */
        post: operations["createReplicationGroup"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replication-groups/{group}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One replication group with its members and how its shared points go. */
        get: operations["showReplicationGroup"];
        /** Changes how often a group shares points; what is left out stays. */
        put: operations["updateReplicationGroup"];
        post?: never;
        /** Removes a group. Its machines go on with recovery points of their own; shared ones that were made stay. */
        delete: operations["removeReplicationGroup"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replication-groups/{group}/members": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Takes a machine into a group; one that is in it already stays. A machine is in one group at most. */
        post: operations["addMember"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/replication-groups/{group}/members/{machine}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Takes a machine out of a group. */
        delete: operations["removeMember"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/role-assignments/{user}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /** Gives a user a role in this vault, in place of the one before. */
        put: operations["assignRoleAssignment"];
        post?: never;
        /** Takes a user's role in this vault away. */
        delete: operations["unassignRoleAssignment"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/servers": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Configuration, process and target servers with their health. */
        get: operations["servers"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/store": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The replica store: room and use. */
        get: operations["store"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/tokens": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** API tokens of this vault. */
        get: operations["tokens"];
        put?: never;
        /** Makes a token of the caller for programs. */
        post: operations["createToken"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/tokens/{token}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Revokes a token. */
        delete: operations["revokeToken"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/users": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Users of this site. */
        get: operations["listUsers"];
        put?: never;
        /** Makes a user with a role in this vault. */
        post: operations["createUser"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/users/{user}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** One user, by name. */
        get: operations["showUser"];
        put?: never;
        post?: never;
        /** Removes a user with all sessions, tokens and roles. */
        delete: operations["removeUser"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/vaults/{vault}/users/{user}/reset-password": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Gives a user a new one-time password and ends all sessions of the user. */
        post: operations["resetPassword"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/whoami": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Who the caller is and what the caller may do. */
        get: operations["whoami"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/healthz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Whether the server answers and can read its database. */
        get: operations["healthz"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/install.sh": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The script that installs the agent on a machine, joins it and starts it. */
        get: operations["script"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/metrics": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** Figures of the server for Prometheus. */
        get: operations["metrics"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description The answer to an order that a job carries out. */
        Accepted: {
            job: components["schemas"]["Job"];
        };
        AddMemberRequest: {
            /** @description A replicated machine, by name or id. */
            machine: string;
        };
        AgentUpdate: {
            agentVersion: string;
            /** @description Why it was rolled back or failed. */
            message: string;
            /**
             * Format: int64
             * @description Number of the order; 0: there was none.
             */
            request: number;
            /** @description The version that an update brings. */
            serverVersion: string;
            /** @description Ordered, Trying, Confirmed, RolledBack, Failed; null: never ordered. */
            state?: string | null;
        };
        /** @description A line of the delivery log. */
        AlertDelivery: {
            /** Format: int32 */
            attempts: number;
            /** @description `email` or `webhook:NAME` */
            channel: string;
            createdAt: components["schemas"]["Time"];
            endedAt?: components["schemas"]["Time"] | null;
            /** @description Why the last attempt failed. */
            error: string;
            id: string;
            /** @description Alert, Test */
            kind: string;
            nextAttemptAt?: components["schemas"]["Time"] | null;
            severity: components["schemas"]["AlertSeverity"];
            /** @description Pending (also while it is tried again), Delivered, Failed (given up), Cancelled (its channel was removed) */
            state: string;
            subject: string;
        };
        AlertEmail: {
            caPem?: string | null;
            from: string;
            /** @description The password itself is never shown. */
            passwordSet: boolean;
            /** Format: int32 */
            port: number;
            security: components["schemas"]["SmtpSecurity"];
            server: string;
            to: string[];
            user?: string | null;
        };
        /** @description The e-mail to send. No `Debug`: it holds a password. */
        AlertEmailRequest: {
            /** @description Trusted in place of the system's authorities. */
            caPem?: string | null;
            from: string;
            /** @description Left out: the one that is stored stays, unless it would go to another server. */
            password?: string | null;
            /**
             * Format: int32
             * @description Default 587, with Tls 465, with None 25.
             */
            port?: number | null;
            security?: components["schemas"]["SmtpSecurity"] | null;
            server: string;
            to: string[];
            /** @description Left out: no login. */
            user?: string | null;
        };
        AlertSettings: {
            /** @description HH:MM in the server's time zone; null: no daily summary. */
            dailySummaryAt?: string | null;
            /**
             * Format: int32
             * @description News is collected this long and sent as one message.
             */
            digestSeconds: number;
            email?: components["schemas"]["AlertEmail"] | null;
            /** @description What is milder is in the events only. */
            leastSeverity: components["schemas"]["AlertSeverity"];
            quietHours?: components["schemas"]["QuietHours"] | null;
            /**
             * Format: int64
             * @description The ETag.
             */
            revision: number;
            webhooks: components["schemas"]["AlertWebhook"][];
        };
        /** @description All of the settings; what is left out has the default, and channels that are left out are removed. */
        AlertSettingsRequest: {
            /** @description HH:MM in the server's time zone. Sent once a day from then on. */
            dailySummaryAt?: string | null;
            /**
             * Format: int32
             * @description Default 60.
             */
            digestSeconds?: number | null;
            email?: components["schemas"]["AlertEmailRequest"] | null;
            leastSeverity?: components["schemas"]["AlertSeverity"] | null;
            quietHours?: components["schemas"]["QuietHours"] | null;
            webhooks?: components["schemas"]["AlertWebhookRequest"][];
        };
        /** @enum {string} */
        AlertSeverity: "Information" | "Warning" | "Critical";
        AlertTest: {
            results: components["schemas"]["AlertTestResult"][];
        };
        AlertTestRequest: {
            /** @description `email` or `webhook:NAME`; left out: all. */
            channel?: string | null;
        };
        AlertTestResult: {
            channel: string;
            delivered: boolean;
            /** @description In the delivery log, and in the message. */
            deliveryId: string;
            error?: components["schemas"]["Reason"] | null;
        };
        AlertWebhook: {
            caPem?: string | null;
            name: string;
            /** @description The secret itself is never shown. */
            secretSet: boolean;
            url: string;
        };
        AlertWebhookRequest: {
            /** @description Trusted in place of the system's authorities. */
            caPem?: string | null;
            name: string;
            /** @description Key of the signature, HMAC-SHA256. Left out: the one that is stored stays. */
            secret?: string | null;
            url: string;
        };
        ApiToken: {
            createdAt: components["schemas"]["Time"];
            expiresAt: components["schemas"]["Time"];
            /** Format: int64 */
            id: number;
            lastUsedAt?: components["schemas"]["Time"] | null;
            name: string;
            revoked: boolean;
            role: string;
            user: string;
        };
        AssignRequest: {
            /** @description Reader, Operator, Contributor, Owner */
            role: string;
        };
        AuditView: {
            action: string;
            at: components["schemas"]["Time"];
            /** Format: int64 */
            id: number;
            object: string;
            /** @description Address, or `unix socket`. */
            origin: string;
            /** @description HTTP status. */
            outcome: string;
            user: string;
        };
        Backup: {
            /** Format: int64 */
            bytes: number;
            madeAt: components["schemas"]["Time"];
            /** @description As `lifeboat vault restore` takes it. */
            name: string;
            /** @description scheduled, before-migration, by-hand */
            reason: string;
        };
        BandwidthNeed: {
            /**
             * Format: int64
             * @description And all the time.
             */
            for100Percent: number;
            /**
             * Format: int64
             * @description Bytes per second on the wire to keep the RPO in 90 % of the time.
             */
            for90Percent: number;
            /** Format: int32 */
            rpoSeconds: number;
        };
        BandwidthWhatIf: {
            /** Format: int64 */
            bytesPerSecond: number;
            keepsRpo: boolean;
            /**
             * Format: int64
             * @description RPO that is kept all the time.
             */
            rpoSeconds100Percent?: number | null;
            /**
             * Format: int64
             * @description RPO that is kept in 90 % of the time; null: the link does not carry the mean, so the backlog grows without end.
             */
            rpoSeconds90Percent?: number | null;
        };
        Capacity: {
            bandwidth: components["schemas"]["BandwidthNeed"];
            /**
             * Format: double
             * @description Changed bytes per byte on the wire.
             */
            compression?: number | null;
            /**
             * Format: int64
             * @description Time that the history covers, in steps of 5 minutes.
             */
            historySeconds: number;
            /** @description The most by its mean first. */
            machines: components["schemas"]["MachineChurn"][];
            /**
             * Format: int64
             * @description Bytes on the wire per second, all machines together.
             */
            meanBytesPerSecond: number;
            /** @description What to know when reading these figures. */
            notes: string[];
            /** Format: int64 */
            peakBytesPerSecond: number;
            retention: components["schemas"]["RetentionNeed"];
            store: components["schemas"]["StoreOutlook"];
            /** @description The lowest limits per hour of the day that would have kept the RPO all the time; null: less than a day is known, or none does. */
            throttleSchedule?: components["schemas"]["ThrottleWindow"][] | null;
            timeZone: string;
            whatIfBandwidth?: components["schemas"]["BandwidthWhatIf"] | null;
        };
        ChangeRecoveryPointRequest: {
            /** @description LatestProcessed, LatestAppConsistent, LatestCrashConsistent, or the id of a point. */
            recoveryPoint: string;
        };
        CheckView: {
            message: string;
            name: string;
            possibleCauses: string;
            recommendedAction: string;
            /** @description pass, warning, error */
            result: string;
        };
        CleanupRequest: {
            /** @description What was seen; kept with the job. */
            notes?: string;
        };
        CompleteMigrationRequest: {
            /**
             * Format: int32
             * @description For how many days; default: until they are removed by hand.
             */
            keepDays?: number | null;
            /** @description The recovery points stay: they can be tested and restored from. */
            keepPoints?: boolean;
        };
        CreateGroupRequest: {
            /**
             * Format: int32
             * @description From one app-consistent one to the next: 3600 to 43200; 0: off. Default: 3600.
             */
            appConsistentSeconds?: number | null;
            /** @description Replicated machines, by name or id. */
            members?: string[];
            /** @description 1 to 63 letters, digits, hyphens and underscores. */
            name: string;
            /**
             * Format: int32
             * @description From one shared point to the next. Default: 30.
             */
            shareSeconds?: number | null;
        };
        CreateNetworkRequest: {
            /** @description Bridge of the target's host; of a productionBridge, where it must be given. */
            bridge?: string | null;
            /** @description Range of an isolated network, for machines that bring no address along. */
            cidr?: string | null;
            /** @description Of an isolated network: Lifeboat hands addresses out by DHCP. Default true. */
            dhcp?: boolean | null;
            dns?: string[];
            /** Format: ipv4 */
            gateway?: string | null;
            kind: components["schemas"]["NetworkKind"];
            /** @description 1 to 32 letters, digits, hyphens and underscores. */
            name: string;
        };
        CreatePlanRequest: {
            /** @description When a test of the plan was cleaned up. */
            afterCleanup?: components["schemas"]["PlanAction"][];
            /** @description One after the other. */
            groups?: components["schemas"]["PlanGroup"][];
            /** @description 1 to 63 letters, digits, hyphens, underscores and full stops. */
            name: string;
            /** @description When a failover of the plan has failed. */
            onFailure?: components["schemas"]["PlanAction"][];
            onMachineFailure?: components["schemas"]["OnMachineFailure"];
            /** @description Isolated network of the vault, in which all machines of a test meet; left out: each machine's own test network. */
            testNetwork?: string | null;
        };
        CreatePointRequest: {
            /**
             * @description Bring applications to rest first, by the hooks on the machine. Where that fails, a crash-consistent point is made and
             *     the job fails, naming both the point and the hook.
             */
            appConsistent?: boolean;
        };
        CreatePolicyRequest: {
            /**
             * Format: int32
             * @description 0: off; else 3600 to 43200. Default 3600.
             */
            appConsistentSeconds?: number | null;
            /**
             * Format: int32
             * @description Default 30.
             */
            crashConsistentSeconds?: number | null;
            /** @description 1 to 63 letters, digits, hyphens, underscores and full stops. */
            name: string;
            /**
             * Format: int32
             * @description Default 24.
             */
            retentionHours?: number | null;
            /**
             * Format: int32
             * @description Default 900.
             */
            rpoThresholdSeconds?: number | null;
        };
        CreateTokenRequest: {
            /** Format: int32 */
            expiresInDays: number;
            name: string;
            /** @description At most the caller's own. */
            role: string;
        };
        CreateUserRequest: {
            name: string;
            /** @description Reader, Operator, Contributor, Owner */
            role: string;
        };
        CreateVaultRequest: {
            /** @description 1 to 63 letters, digits and hyphens; starts and ends with a letter or digit. */
            name: string;
        };
        CreatedJoinToken: {
            /** @description Of the server's CA, for `lifeboat agent join`. */
            caFingerprint: string;
            /** @description Address of the data port, for `lifeboat agent join`. */
            dataAddress: string;
            expiresAt: components["schemas"]["Time"];
            /** Format: int64 */
            id: number;
            /** @description What is run on the machine: fetches, checks, installs, joins and starts the agent. */
            installCommand: string;
            /** @description Shown this once. */
            token: string;
        };
        CreatedToken: {
            /** Format: int64 */
            id: number;
            /** @description Shown this once. */
            token: string;
        };
        /** @enum {string} */
        DiskBusView: "virtioBlk" | "virtioScsi" | "ahci";
        /** @description A disk of a hydrated machine. */
        DiskFileView: {
            /** @description raw, qcow2 */
            format: string;
            /** @description On the server's host. */
            path: string;
            /** Format: int64 */
            sizeBytes: number;
        };
        /** @enum {string} */
        DiskFormatView: "raw" | "qcow2";
        EnableRequest: {
            /** @description Also while an alarm of the process server is critical. */
            acceptCriticalServer?: boolean;
            /** @description Stable ids; default: all disks. */
            disks?: string[] | null;
            /** @description Name or id of a machine that joined. */
            machine: string;
            /** @description Default: `default`. */
            policy?: string | null;
            target?: components["schemas"]["TargetView"] | null;
        };
        Event: {
            at: components["schemas"]["Time"];
            code: string;
            /** Format: int64 */
            id: number;
            job?: string | null;
            machine?: components["schemas"]["Named"] | null;
            message: string;
            possibleCauses: string;
            recommendedAction: string;
            /** @description Information, Warning, Critical */
            severity: string;
        };
        /** @enum {string} */
        FailoverDirection: "primaryToRecovery" | "recoveryToPrimary";
        /** @description What a failover would start now. */
        FailoverPreview: {
            /** Format: int32 */
            cpus: number;
            /** @description Name at the target; of a failback, the machine's own. */
            machineName: string;
            /** Format: int64 */
            memoryBytes: number;
            nics: components["schemas"]["NicPreview"][];
        };
        /** @enum {string} */
        FailoverType: "test" | "planned" | "unplanned";
        FailoverView: {
            /** @description Of a machine that was hydrated: its disks. Empty: it reads them from the replica. */
            files: components["schemas"]["DiskFileView"][];
            job: string;
            /** @description Name at the target. */
            machineName: string;
            recoveryPoint: string;
            recoveryPointInstant: components["schemas"]["Time"];
        };
        /** @enum {string} */
        FirmwareView: "bios" | "uefi";
        ForwardView: {
            /** Format: int32 */
            guestPort: number;
            /**
             * Format: int32
             * @description 0: a free one is chosen.
             */
            hostPort: number;
        };
        GroupMember: {
            id: string;
            name: string;
            /** @description It can take part in shared points. */
            takesPart: boolean;
            /** @description Why it cannot, or why the last shared point came to nothing because of it. */
            trouble: string;
        };
        HealthErrorView: {
            category: string;
            code: string;
            message: string;
            possibleCauses: string;
            recommendedAction: string;
            severity: string;
            summary: string;
        };
        Healthz: {
            status: string;
            version: string;
        };
        HydrateRequest: {
            /**
             * @description Full path of a folder on the server's host, outside of the server's data folder. The machine gets a folder of its own
             *     in it.
             */
            folder: string;
            format?: components["schemas"]["DiskFormatView"];
        };
        Invitation: {
            createdAt: components["schemas"]["Time"];
            expiresAt: components["schemas"]["Time"];
            /** Format: int64 */
            id: number;
            madeBy: string;
            /** @description Valid, Used, Expired, Revoked */
            state: string;
            usedAt?: components["schemas"]["Time"] | null;
            /** @description Name of the machine or server that it let in. */
            usedBy?: string | null;
        };
        ItemDiskView: {
            /** @description ebpf, scan */
            capture?: string | null;
            /** Format: int64 */
            changedBytes: number;
            /**
             * Format: double
             * @description Bytes per second that changed, over the last minutes; null: not known yet.
             */
            churnBytesPerSecond?: number | null;
            /** Format: int64 */
            doneBytes: number;
            id: string;
            /** @description False: it is copied for the first time; recovery points hold it from the first one on that has all disks. */
            inRecoveryPoints: boolean;
            /**
             * Format: int64
             * @description Backlog at the source: changed and not yet durable at the target.
             */
            pendingBytes: number;
            /**
             * Format: int64
             * @description Backlog at the process server: arrived, and not yet durable. Stored size.
             */
            processServerBytes: number;
            /**
             * Format: int64
             * @description Since the agent started.
             */
            readBytes: number;
            /** Format: int64 */
            shippedBytes: number;
            /** Format: int64 */
            sizeBytes: number;
            stableId: string;
            /**
             * @description InitialReplicationPending, InitialReplicationInProgress, Protected, ResyncRequired, Resynchronizing, Unavailable;
             *     null: the agent has not told yet.
             */
            state?: string | null;
            /**
             * Format: int64
             * @description Backlog at the target: durable, and in no recovery point yet. Stored size.
             */
            targetBytes: number;
            /** Format: int64 */
            totalBytes: number;
        };
        /** @description A job: something that takes time, with its tasks. */
        Job: {
            /** @description `cancel` while it may be cancelled; `restart` when it failed or was cancelled; `resume` while it is suspended. */
            allowedActions: string[];
            createdAt: components["schemas"]["Time"];
            endedAt?: components["schemas"]["Time"] | null;
            error?: components["schemas"]["Reason"] | null;
            id: string;
            /**
             * @description EnableReplication, DisableReplication, TestFailover, TestFailoverCleanup, PlannedFailover, UnplannedFailover,
             *     ChangeRecoveryPoint, CommitFailover, CancelFailover, Reprotect, Failback,
             *     Resynchronize, ChangeDisks, CreateRecoveryPoint, Hydrate, CompleteMigration
             */
            kind: string;
            machine: components["schemas"]["Named"];
            /** @description What was asked for. */
            parameters: Record<string, never>;
            /** @description The job that failed and is tried again by this one. */
            restartOf?: string | null;
            /** @description What came out. */
            result: Record<string, never>;
            /** @description `kind` in words. */
            scenario: string;
            startedAt?: components["schemas"]["Time"] | null;
            /** @description NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended */
            state: string;
            tasks: components["schemas"]["TaskView"][];
            user: string;
        };
        JoinTokenRequest: {
            /**
             * @description Name or address under which the machine reaches this server; else the one of this call, else the server's own name.
             * @default null
             */
            address?: string | null;
            /**
             * Format: int32
             * @description How long the token is good for; an hour where nothing is said.
             * @default null
             */
            validMinutes?: number | null;
        };
        /** @description What is needed to join. */
        Joining: {
            caPem: string;
            passphrase: string;
        };
        /** @description Recovery points of a machine that is not protected any more. */
        KeptPointsView: {
            count: number;
            since: components["schemas"]["Time"];
            /**
             * Format: int64
             * @description What the store gets back when they are removed.
             */
            storedBytes: number;
            until?: components["schemas"]["Time"] | null;
        };
        LoginAnswer: {
            /** @description Nothing but the change of the password is allowed before it. */
            mustChangePassword: boolean;
            /** @description Only where `bearer` was asked for. */
            token?: string | null;
            user: string;
        };
        LoginRequest: {
            /** @description True: the answer holds the token and no cookie is set. For programs. */
            bearer?: boolean;
            /** Format: password */
            password: string;
            user: string;
        };
        Machine: {
            agentVersion: string;
            architecture: string;
            checks: components["schemas"]["CheckView"][];
            /**
             * Format: double
             * @description Agent's clock minus server's.
             */
            clockSkewSeconds?: number | null;
            /** Format: int32 */
            cpus: number;
            disks: components["schemas"]["MachineDisk"][];
            /** @description bios, uefi */
            firmware: string;
            hostName: string;
            id: string;
            joinedAt: components["schemas"]["Time"];
            kernel: string;
            lastHeartbeatAt?: components["schemas"]["Time"] | null;
            /** Format: int64 */
            memoryBytes: number;
            name: string;
            nics: components["schemas"]["MachineNic"][];
            os: string;
            /** @description What the agent is doing, in words. */
            phase: string;
            /** @description Worst result of the checks: pass, warning, error; null before the first heartbeat. */
            prerequisites?: string | null;
            replicated: boolean;
            /** @description Its certificates were revoked. */
            revoked: boolean;
        };
        MachineChurn: {
            /**
             * Format: int64
             * @description Changed on the machine's disks per day, as a mean over what is known.
             */
            changedBytesPerDay: number;
            machine: components["schemas"]["Named"];
            /**
             * Format: int64
             * @description On the wire, as a mean.
             */
            meanBytesPerSecond: number;
            /**
             * Format: int64
             * @description On the wire, in the busiest 5 minutes.
             */
            peakBytesPerSecond: number;
        };
        MachineDisk: {
            boot: boolean;
            /** @description Device node at this moment. */
            device: string;
            mountPoints: string[];
            /** Format: int64 */
            sizeBytes: number;
            /** @description Names the disk at enable time. */
            stableId: string;
        };
        MachineNic: {
            addresses: string[];
            mac: string;
            name: string;
        };
        MaintenanceWindow: {
            beginsAt: components["schemas"]["Time"];
            endsAt: components["schemas"]["Time"];
            /** Format: int64 */
            id: number;
            machine?: components["schemas"]["Named"] | null;
            madeBy: string;
            note: string;
            /** @description Planned, On, Over */
            state: string;
        };
        MapRequest: {
            /** @description Also for machines that are replicated already. Default false: only for those that will be. */
            applyToItems?: boolean;
            /** @description Subnet of the source, or `*` for all that have no mapping of their own. */
            source: string;
            /** @description Network at a failover; null: none. */
            target?: string | null;
            /** @description Isolated network at a test failover; null: none. Both null: the mapping is removed. */
            test?: string | null;
        };
        Mapped: {
            /** @description Machines whose target settings were changed. */
            changedItems: string[];
        };
        Named: {
            id: string;
            name: string;
        };
        /** @description A network of the target site. */
        Network: {
            bridge?: string | null;
            cidr?: string | null;
            dhcp: boolean;
            dns: string[];
            /** Format: ipv4 */
            gateway?: string | null;
            kind: components["schemas"]["NetworkKind"];
            name: string;
            /**
             * Format: int64
             * @description The ETag.
             */
            revision: number;
        };
        /** @enum {string} */
        NetworkKind: "productionBridge" | "user" | "isolated";
        /** @description Networks that stand for one of the source. */
        NetworkMapping: {
            /** @description Subnet of the source, or `*` for all that have no mapping of their own. */
            source: string;
            /** @description At a failover. */
            target?: string | null;
            /** @description At a test failover. */
            test?: string | null;
        };
        NetworkMappings: {
            mappings: components["schemas"]["NetworkMapping"][];
            /** @description Subnets that the machines of the vault are in, as their agents tell. */
            sourceNetworks: components["schemas"]["SourceNetwork"][];
        };
        /** @description What a network is; what is left out has the default. */
        NetworkValues: {
            /** @description Bridge of the target's host; of a productionBridge, where it must be given. */
            bridge?: string | null;
            /** @description Range of an isolated network, for machines that bring no address along. */
            cidr?: string | null;
            /** @description Of an isolated network: Lifeboat hands addresses out by DHCP. Default true. */
            dhcp?: boolean | null;
            dns?: string[];
            /** Format: ipv4 */
            gateway?: string | null;
            kind: components["schemas"]["NetworkKind"];
        };
        NetworkView: {
            forwards?: components["schemas"]["ForwardView"][];
            /** @enum {string} */
            kind: "user";
        } | {
            forwards?: components["schemas"]["ForwardView"][];
            /** @enum {string} */
            kind: "isolatedUser";
        } | {
            /** @enum {string} */
            kind: "isolated";
            name: string;
        } | {
            /** @enum {string} */
            kind: "bridge";
            name: string;
        } | {
            /** @enum {string} */
            kind: "named";
            name: string;
        };
        /** @description What a guest is to use on a NIC. */
        NicAddressView: {
            /** @description With the length of the subnet: 192.0.2.7/24. */
            cidr: string;
            dns?: string[];
            /** Format: ipv4 */
            gateway?: string | null;
        };
        NicPreview: {
            address?: components["schemas"]["NicAddressView"] | null;
            /** @description How the guest comes by its address, in words. */
            how: string;
            mac?: string | null;
            /** @description As the source names it; null: it has no such NIC. */
            name?: string | null;
            /** @description isolated, user, isolatedUser, bridge; of a failback: source */
            networkKind: string;
            networkName?: string | null;
        };
        NicView: {
            address?: components["schemas"]["NicAddressView"] | null;
            /** @description Null: made up. */
            mac?: string | null;
            network: components["schemas"]["NetworkView"];
        };
        /** @enum {string} */
        OnMachineFailure: "stop" | "goOn" | "ask";
        OneTimePassword: {
            /** @description Shown this once; must be changed at the first login. */
            oneTimePassword: string;
            user: string;
        };
        /** @description A health error that is on. */
        OpenHealthErrorView: {
            code: string;
            machine?: components["schemas"]["Named"] | null;
            message: string;
            possibleCauses: string;
            recommendedAction: string;
            severity: components["schemas"]["AlertSeverity"];
            since: components["schemas"]["Time"];
            summary: string;
        };
        OperationView: {
            allowed: boolean;
            operation: string;
            reason?: components["schemas"]["Reason"] | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_AlertDelivery: {
            items: {
                /** Format: int32 */
                attempts: number;
                /** @description `email` or `webhook:NAME` */
                channel: string;
                createdAt: components["schemas"]["Time"];
                endedAt?: components["schemas"]["Time"] | null;
                /** @description Why the last attempt failed. */
                error: string;
                id: string;
                /** @description Alert, Test */
                kind: string;
                nextAttemptAt?: components["schemas"]["Time"] | null;
                severity: components["schemas"]["AlertSeverity"];
                /** @description Pending (also while it is tried again), Delivered, Failed (given up), Cancelled (its channel was removed) */
                state: string;
                subject: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_ApiToken: {
            items: {
                createdAt: components["schemas"]["Time"];
                expiresAt: components["schemas"]["Time"];
                /** Format: int64 */
                id: number;
                lastUsedAt?: components["schemas"]["Time"] | null;
                name: string;
                revoked: boolean;
                role: string;
                user: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_AuditView: {
            items: {
                action: string;
                at: components["schemas"]["Time"];
                /** Format: int64 */
                id: number;
                object: string;
                /** @description Address, or `unix socket`. */
                origin: string;
                /** @description HTTP status. */
                outcome: string;
                user: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_Backup: {
            items: {
                /** Format: int64 */
                bytes: number;
                madeAt: components["schemas"]["Time"];
                /** @description As `lifeboat vault restore` takes it. */
                name: string;
                /** @description scheduled, before-migration, by-hand */
                reason: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_Event: {
            items: {
                at: components["schemas"]["Time"];
                code: string;
                /** Format: int64 */
                id: number;
                job?: string | null;
                machine?: components["schemas"]["Named"] | null;
                message: string;
                possibleCauses: string;
                recommendedAction: string;
                /** @description Information, Warning, Critical */
                severity: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_Invitation: {
            items: {
                createdAt: components["schemas"]["Time"];
                expiresAt: components["schemas"]["Time"];
                /** Format: int64 */
                id: number;
                madeBy: string;
                /** @description Valid, Used, Expired, Revoked */
                state: string;
                usedAt?: components["schemas"]["Time"] | null;
                /** @description Name of the machine or server that it let in. */
                usedBy?: string | null;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_Job: {
            items: {
                /** @description `cancel` while it may be cancelled; `restart` when it failed or was cancelled; `resume` while it is suspended. */
                allowedActions: string[];
                createdAt: components["schemas"]["Time"];
                endedAt?: components["schemas"]["Time"] | null;
                error?: components["schemas"]["Reason"] | null;
                id: string;
                /**
                 * @description EnableReplication, DisableReplication, TestFailover, TestFailoverCleanup, PlannedFailover, UnplannedFailover,
                 *     ChangeRecoveryPoint, CommitFailover, CancelFailover, Reprotect, Failback,
                 *     Resynchronize, ChangeDisks, CreateRecoveryPoint, Hydrate, CompleteMigration
                 */
                kind: string;
                machine: components["schemas"]["Named"];
                /** @description What was asked for. */
                parameters: Record<string, never>;
                /** @description The job that failed and is tried again by this one. */
                restartOf?: string | null;
                /** @description What came out. */
                result: Record<string, never>;
                /** @description `kind` in words. */
                scenario: string;
                startedAt?: components["schemas"]["Time"] | null;
                /** @description NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended */
                state: string;
                tasks: components["schemas"]["TaskView"][];
                user: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_Machine: {
            items: {
                agentVersion: string;
                architecture: string;
                checks: components["schemas"]["CheckView"][];
                /**
                 * Format: double
                 * @description Agent's clock minus server's.
                 */
                clockSkewSeconds?: number | null;
                /** Format: int32 */
                cpus: number;
                disks: components["schemas"]["MachineDisk"][];
                /** @description bios, uefi */
                firmware: string;
                hostName: string;
                id: string;
                joinedAt: components["schemas"]["Time"];
                kernel: string;
                lastHeartbeatAt?: components["schemas"]["Time"] | null;
                /** Format: int64 */
                memoryBytes: number;
                name: string;
                nics: components["schemas"]["MachineNic"][];
                os: string;
                /** @description What the agent is doing, in words. */
                phase: string;
                /** @description Worst result of the checks: pass, warning, error; null before the first heartbeat. */
                prerequisites?: string | null;
                replicated: boolean;
                /** @description Its certificates were revoked. */
                revoked: boolean;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_MaintenanceWindow: {
            items: {
                beginsAt: components["schemas"]["Time"];
                endsAt: components["schemas"]["Time"];
                /** Format: int64 */
                id: number;
                machine?: components["schemas"]["Named"] | null;
                madeBy: string;
                note: string;
                /** @description Planned, On, Over */
                state: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_Network: {
            items: {
                bridge?: string | null;
                cidr?: string | null;
                dhcp: boolean;
                dns: string[];
                /** Format: ipv4 */
                gateway?: string | null;
                kind: components["schemas"]["NetworkKind"];
                name: string;
                /**
                 * Format: int64
                 * @description The ETag.
                 */
                revision: number;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_OpenHealthErrorView: {
            items: {
                code: string;
                machine?: components["schemas"]["Named"] | null;
                message: string;
                possibleCauses: string;
                recommendedAction: string;
                severity: components["schemas"]["AlertSeverity"];
                since: components["schemas"]["Time"];
                summary: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_PlanRun: {
            items: {
                /** @description stop, resume, skip, cancel */
                allowedActions: string[];
                cancelledBy?: string | null;
                createdAt: components["schemas"]["Time"];
                endedAt?: components["schemas"]["Time"] | null;
                error?: components["schemas"]["Reason"] | null;
                id: string;
                notes: string;
                operation: string;
                plan: components["schemas"]["Named"];
                recoveryPoint?: string | null;
                /** @description Machines by state, rpoSeconds, rtoSeconds, planRtoSeconds. */
                result: Record<string, never>;
                /** @description `operation` in words. */
                scenario: string;
                startedAt?: components["schemas"]["Time"] | null;
                /** @description NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended */
                state: string;
                steps: components["schemas"]["PlanRunStep"][];
                stoppedBy?: string | null;
                testNetwork?: string | null;
                user: string;
                /** @description Why it waits for a person. */
                waitsFor: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_Policy: {
            items: {
                /**
                 * Format: int32
                 * @description 0: off.
                 */
                appConsistentSeconds: number;
                /** Format: int32 */
                crashConsistentSeconds: number;
                /** @description False: it is the twin of `failbackOf` and changes with it. */
                editable: boolean;
                failbackOf?: string | null;
                /**
                 * Format: int64
                 * @description Replicated items that follow it.
                 */
                items: number;
                name: string;
                /** Format: int32 */
                retentionHours: number;
                /**
                 * Format: int64
                 * @description The ETag.
                 */
                revision: number;
                /** Format: int32 */
                rpoThresholdSeconds: number;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_RecoveryPlan: {
            items: {
                afterCleanup: components["schemas"]["PlanAction"][];
                groups: components["schemas"]["PlanGroup"][];
                id: string;
                lastRun?: components["schemas"]["PlanRun"] | null;
                lastSuccessfulTestFailoverAt?: components["schemas"]["Time"] | null;
                /** Format: int64 */
                machineCount: number;
                name: string;
                onFailure: components["schemas"]["PlanAction"][];
                onMachineFailure: components["schemas"]["OnMachineFailure"];
                /**
                 * Format: int64
                 * @description The ETag.
                 */
                revision: number;
                testNetwork?: string | null;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_RecoveryPoint: {
            items: {
                /** @description AppConsistent, CrashConsistent, Fuzzy */
                consistency: string;
                disks: string[];
                /** Format: double */
                freezeMs: number;
                /** @description The least of what the machines of the group call their points of this instant: AppConsistent, CrashConsistent. */
                groupConsistency?: string | null;
                /** @description All machines of a replication group have a point of this instant, under this id; null: it is the machine's alone. */
                groupPoint?: string | null;
                id: string;
                instant: components["schemas"]["Time"];
                /** @description Why it is not better, where that is known. */
                note: string;
                /**
                 * Format: int64
                 * @description Bytes that the store grew by.
                 */
                storedBytes: number;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_ReplicatedItem: {
            items: {
                /** @description Primary, Recovery */
                activeLocation: string;
                agentVersion: string;
                allowedOperations: components["schemas"]["OperationView"][];
                /**
                 * Format: double
                 * @description Bytes per second that changed at the source, over the last minutes; null: not known yet.
                 */
                churnBytesPerSecond?: number | null;
                computedAt: components["schemas"]["Time"];
                /** @description A replication session is open. */
                connected: boolean;
                /** @description PrimaryToRecovery, RecoveryToPrimary: where replication leads now, or led last. */
                direction: string;
                disks: components["schemas"]["ItemDiskView"][];
                failover?: components["schemas"]["FailoverView"] | null;
                /** @description Normal: a test failover was cleaned up within six months. Warning: one is due. None: there is no point yet. */
                failoverHealth: string;
                /**
                 * Format: double
                 * @description Of the last point.
                 */
                freezeMs: number;
                healthErrors: components["schemas"]["HealthErrorView"][];
                /** @description Of the machine. */
                id: string;
                keptPoints?: components["schemas"]["KeptPointsView"] | null;
                lastHeartbeatAt?: components["schemas"]["Time"] | null;
                lastRecoveryPoint?: components["schemas"]["PointRef"] | null;
                lastSuccessfulTestFailoverAt?: components["schemas"]["Time"] | null;
                latestAppConsistentPoint?: components["schemas"]["PointRef"] | null;
                /** @description It stays at the target for good, and its source is fenced for good. */
                migrated: boolean;
                name: string;
                /**
                 * Format: int64
                 * @description Changed at the source and not yet durable at the target.
                 */
                pendingBytes: number;
                /** @description What the agent is doing, in words. */
                phase: string;
                policy: string;
                progress?: components["schemas"]["Progress"] | null;
                protectionState: string;
                /** @description Machine that takes this one home, from the reprotect to the commit at home. */
                receiver?: string | null;
                /** @description Normal, Warning, Critical, None */
                replicationHealth: string;
                /**
                 * Format: int64
                 * @description Grows with every change; the ETag.
                 */
                revision: number;
                /**
                 * Format: double
                 * @description Age of the newest consistent point at the target; null: there is none, or none are made of it any more.
                 */
                rpoSeconds?: number | null;
                /** Format: int32 */
                rpoThresholdSeconds: number;
                /** @description The state as a person reads it. */
                status: string;
                target: components["schemas"]["TargetView"];
                testFailover?: components["schemas"]["FailoverView"] | null;
                testFailoverState: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_ReplicationGroup: {
            items: {
                /** Format: int32 */
                appConsistentSeconds: number;
                failingSince?: components["schemas"]["Time"] | null;
                /**
                 * Format: double
                 * @description From the order to freeze until all machines had thawed: half of the last rounds took no longer, and 99 % of them.
                 */
                freezeWindowMsP50?: number | null;
                /** Format: double */
                freezeWindowMsP99?: number | null;
                /** @description Normal, Warning: there are no shared points; None: fewer than two machines, or nothing is known since the server started. */
                health: string;
                lastAppConsistentPoint?: components["schemas"]["SharedPoint"] | null;
                lastSharedPoint?: components["schemas"]["SharedPoint"] | null;
                members: components["schemas"]["GroupMember"][];
                name: string;
                /**
                 * Format: int64
                 * @description The ETag.
                 */
                revision: number;
                /**
                 * Format: int64
                 * @description Since the server started: tried, and made.
                 */
                rounds: number;
                /** Format: int32 */
                shareSeconds: number;
                /** Format: int64 */
                sharedPoints: number;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_ServerFacts: {
            items: {
                /** @description Addresses that agents and people dial. */
                addresses: string[];
                alarms: components["schemas"]["ServerAlarm"][];
                /**
                 * Format: int64
                 * @description Changed at the sources and not yet durable at the target, of all machines.
                 */
                backlogBytes: number;
                /**
                 * Format: int64
                 * @description Until the backlog is shipped at that rate.
                 */
                backlogEtaSeconds?: number | null;
                /**
                 * Format: double
                 * @description Over the last minute; null: not known. So with what follows.
                 */
                cpuPercent?: number | null;
                detail: string;
                /** @description Normal, Warning, Critical */
                health: string;
                /**
                 * Format: int64
                 * @description Arrived and in the process server's memory.
                 */
                heldBytes: number;
                lastHeartbeatAt?: components["schemas"]["Time"] | null;
                /** Format: double */
                memoryPercent?: number | null;
                name: string;
                /** Format: double */
                receivedBytesPerSecond?: number | null;
                /** @description configuration, process, vault, target, web */
                roles: string[];
                /**
                 * Format: int64
                 * @description Replication sessions that are open.
                 */
                sessions: number;
                /** @description `Connected`, or what is wrong. */
                state: string;
                /** Format: int64 */
                storeCapacityBytes?: number | null;
                /** Format: int64 */
                storeFreeBytes?: number | null;
                version: string;
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_User: {
            items: {
                createdAt: components["schemas"]["Time"];
                mustChangePassword: boolean;
                name: string;
                /**
                 * Format: int64
                 * @description Grows with every change; the ETag.
                 */
                revision: number;
                roles: components["schemas"]["VaultRole"][];
            }[];
            nextCursor?: string | null;
        };
        /** @description Part of a list. `nextCursor` null: it was the last part. */
        Page_Vault: {
            items: {
                createdAt: components["schemas"]["Time"];
                /**
                 * Format: int64
                 * @description Machines that are joined to it.
                 */
                machines: number;
                name: string;
                /** Format: int64 */
                replicatedItems: number;
                /** @description The caller's. */
                role: string;
            }[];
            nextCursor?: string | null;
        };
        PasswordRequest: {
            /** Format: password */
            currentPassword: string;
            /** Format: password */
            newPassword: string;
        };
        /** @description The answer to an order that a run of a plan carries out. */
        PlanAccepted: {
            run: components["schemas"]["PlanRun"];
        };
        /** @description Which fields are used follows from the kind. */
        PlanAction: {
            arguments?: string[];
            /** @description Empty: both. */
            directions?: components["schemas"]["FailoverDirection"][];
            /** @description Empty: all. */
            failoverTypes?: components["schemas"]["FailoverType"][];
            /** @description Of a manual action. */
            instructions?: string | null;
            kind: components["schemas"]["PlanActionKind"];
            /** @description Of a command and a probe: a machine of the plan, by name or id. */
            machine?: string | null;
            name: string;
            /** @description Of a probe by HTTP. Default /. */
            path?: string | null;
            /** Format: int32 */
            port?: number | null;
            /** @description Of a probe: tcp, http, ping */
            protocol?: string | null;
            /** @description Of a script and a command: a file of the server's folder of scripts. */
            script?: string | null;
            /**
             * Format: int32
             * @description Of a delay.
             */
            seconds?: number | null;
            /**
             * Format: int32
             * @description Of a probe by HTTP. Default 200 to 399.
             */
            status?: number | null;
            /**
             * Format: int32
             * @description Of a script, a command and a probe. Default 300.
             */
            timeoutSeconds?: number | null;
        };
        /** @enum {string} */
        PlanActionKind: "script" | "command" | "manual" | "probe" | "delay";
        /** @description What would go wrong in a test failover now. Empty: nothing that can be known beforehand. */
        PlanChecks: {
            problems: components["schemas"]["PlanProblem"][];
        };
        PlanCleanupRequest: {
            /** @description What was seen; kept with the run and with each machine's job. */
            notes?: string;
        };
        PlanFailoverRequest: {
            /**
             * @description Latest (default), LatestProcessed, LatestAppConsistent, LatestCrashConsistent, LatestMultiVm,
             *     LatestMultiVmAppConsistent. MultiVm: machines of a replication group at one instant, the others at their latest.
             */
            recoveryPoint?: string | null;
        };
        PlanGroup: {
            /** @description One after the other, when all machines are up. */
            after?: components["schemas"]["PlanAction"][];
            /** @description One after the other, before the machines. */
            before?: components["schemas"]["PlanAction"][];
            /** @description By name or id; they are started at once. */
            machines?: string[];
            name?: string;
        };
        PlanProblem: components["schemas"]["Reason"] & {
            /** @description Machine or action. */
            object: string;
            /** @description Error: it would fail. Warning: it may. */
            severity: string;
        };
        /** @description A run of a recovery plan. */
        PlanRun: {
            /** @description stop, resume, skip, cancel */
            allowedActions: string[];
            cancelledBy?: string | null;
            createdAt: components["schemas"]["Time"];
            endedAt?: components["schemas"]["Time"] | null;
            error?: components["schemas"]["Reason"] | null;
            id: string;
            notes: string;
            operation: string;
            plan: components["schemas"]["Named"];
            recoveryPoint?: string | null;
            /** @description Machines by state, rpoSeconds, rtoSeconds, planRtoSeconds. */
            result: Record<string, never>;
            /** @description `operation` in words. */
            scenario: string;
            startedAt?: components["schemas"]["Time"] | null;
            /** @description NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended */
            state: string;
            steps: components["schemas"]["PlanRunStep"][];
            stoppedBy?: string | null;
            testNetwork?: string | null;
            user: string;
            /** @description Why it waits for a person. */
            waitsFor: string;
        };
        /** @description A step of a run: a machine, or an action. */
        PlanRunStep: {
            /**
             * Format: int32
             * @description How often it was begun.
             */
            attempt: number;
            comment: string;
            /** @description Who resumed or skipped it. */
            decidedBy?: string | null;
            earlierJobs: string[];
            endedAt?: components["schemas"]["Time"] | null;
            error?: components["schemas"]["Reason"] | null;
            /**
             * Format: int32
             * @description Of the plan, from 0 on; null: of the plan as a whole.
             */
            group?: number | null;
            groupName?: string | null;
            /** Format: int64 */
            index: number;
            /** @description Of a manual action. */
            instructions?: string | null;
            /** @description The machine's job. */
            job?: string | null;
            /** @description machine, script, command, manual, probe, delay */
            kind: string;
            machine?: components["schemas"]["Named"] | null;
            message: string;
            name: string;
            /** @description Before, Machines, After, OnFailure, AfterCleanup */
            phase: string;
            /**
             * Format: double
             * @description Age of the machine's point when the run began.
             */
            rpoSeconds?: number | null;
            /**
             * Format: double
             * @description From the run's begin until the machine was up.
             */
            rtoSeconds?: number | null;
            /** @description skip: a person may go on without it. */
            skippable: boolean;
            /**
             * Format: int32
             * @description Steps of one stage go on at once.
             */
            stage: number;
            startedAt?: components["schemas"]["Time"] | null;
            /** @description NotStarted, InProgress, Suspended, Succeeded, Failed, Skipped */
            state: string;
        };
        PlanScripts: {
            /** @description Folder on the server. */
            folder: string;
            /** @description Files in it that a plan may use. */
            scripts: string[];
        };
        PlanTestRequest: {
            /**
             * @description Latest, LatestProcessed (default), LatestAppConsistent, LatestCrashConsistent, LatestMultiVm,
             *     LatestMultiVmAppConsistent. MultiVm: machines of a replication group at one instant, the others at their latest.
             */
            recoveryPoint?: string | null;
            /** @description Isolated network of the vault in place of the plan's. */
            testNetwork?: string | null;
        };
        /** @description All of a plan but its name. */
        PlanValues: {
            /** @description When a test of the plan was cleaned up. */
            afterCleanup?: components["schemas"]["PlanAction"][];
            /** @description One after the other. */
            groups?: components["schemas"]["PlanGroup"][];
            /** @description Another name; left out: it stays. */
            name?: string | null;
            /** @description When a failover of the plan has failed. */
            onFailure?: components["schemas"]["PlanAction"][];
            onMachineFailure?: components["schemas"]["OnMachineFailure"];
            /** @description Isolated network of the vault, in which all machines of a test meet; left out: each machine's own test network. */
            testNetwork?: string | null;
        };
        PointRef: {
            /** @description AppConsistent, CrashConsistent, Fuzzy */
            consistency: string;
            id: string;
            instant: components["schemas"]["Time"];
        };
        Policy: {
            /**
             * Format: int32
             * @description 0: off.
             */
            appConsistentSeconds: number;
            /** Format: int32 */
            crashConsistentSeconds: number;
            /** @description False: it is the twin of `failbackOf` and changes with it. */
            editable: boolean;
            failbackOf?: string | null;
            /**
             * Format: int64
             * @description Replicated items that follow it.
             */
            items: number;
            name: string;
            /** Format: int32 */
            retentionHours: number;
            /**
             * Format: int64
             * @description The ETag.
             */
            revision: number;
            /** Format: int32 */
            rpoThresholdSeconds: number;
        };
        /** @description Values of a policy; what is left out has the default. */
        PolicyValues: {
            /**
             * Format: int32
             * @description 0: off; else 3600 to 43200. Default 3600.
             */
            appConsistentSeconds?: number | null;
            /**
             * Format: int32
             * @description Default 30.
             */
            crashConsistentSeconds?: number | null;
            /**
             * Format: int32
             * @description Default 24.
             */
            retentionHours?: number | null;
            /**
             * Format: int32
             * @description Default 900.
             */
            rpoThresholdSeconds?: number | null;
        };
        /** @description An error that a person or a program can act on. */
        Problem: {
            /** @description Stable, e.g. `AlreadyReplicated`. */
            code: string;
            message: string;
            possibleCauses: string;
            recommendedAction: string;
            requestId: string;
            /** Format: int32 */
            status: number;
            title: string;
            /** @description `urn:lifeboat:problem:` and the code. */
            type: string;
        };
        Progress: {
            /** Format: double */
            bytesPerSecond?: number | null;
            /** Format: int64 */
            doneBytes: number;
            /** Format: int64 */
            etaSeconds?: number | null;
            /** @description InProgress, SlowProgress, NoProgress, Queued */
            health: string;
            /** Format: double */
            percent: number;
            /** Format: int64 */
            totalBytes: number;
        };
        /** @description From when to when only what is critical is sent, in the server's time zone; the rest waits for the end. */
        QuietHours: {
            /** @description HH:MM */
            from: string;
            /** @description HH:MM; before `from`: on the next day. */
            to: string;
        };
        /** @description Why something is not allowed or failed. */
        Reason: {
            code: string;
            message: string;
            possibleCauses: string;
            recommendedAction: string;
        };
        /** @description A recovery plan. */
        RecoveryPlan: {
            afterCleanup: components["schemas"]["PlanAction"][];
            groups: components["schemas"]["PlanGroup"][];
            id: string;
            lastRun?: components["schemas"]["PlanRun"] | null;
            lastSuccessfulTestFailoverAt?: components["schemas"]["Time"] | null;
            /** Format: int64 */
            machineCount: number;
            name: string;
            onFailure: components["schemas"]["PlanAction"][];
            onMachineFailure: components["schemas"]["OnMachineFailure"];
            /**
             * Format: int64
             * @description The ETag.
             */
            revision: number;
            testNetwork?: string | null;
        };
        RecoveryPoint: {
            /** @description AppConsistent, CrashConsistent, Fuzzy */
            consistency: string;
            disks: string[];
            /** Format: double */
            freezeMs: number;
            /** @description The least of what the machines of the group call their points of this instant: AppConsistent, CrashConsistent. */
            groupConsistency?: string | null;
            /** @description All machines of a replication group have a point of this instant, under this id; null: it is the machine's alone. */
            groupPoint?: string | null;
            id: string;
            instant: components["schemas"]["Time"];
            /** @description Why it is not better, where that is known. */
            note: string;
            /**
             * Format: int64
             * @description Bytes that the store grew by.
             */
            storedBytes: number;
        };
        /** @description A registration key, as it is kept in a file until the machine that it is for is set up. With all that joining needs. */
        RegistrationKey: {
            caFingerprint: string;
            /** @description Of the data port, which an agent dials. */
            dataAddress: string;
            expiresAt: components["schemas"]["Time"];
            /** Format: int64 */
            id: number;
            /** @description Shown this once. */
            key: string;
            /** @description Tells this site from others. */
            site: string;
            /** @description Of the vault's HTTPS port. */
            url: string;
            vault: string;
        };
        RegistrationKeyRequest: {
            /**
             * @description Name or address under which the machine reaches this server; else the one of this call, else the server's own name.
             * @default null
             */
            address?: string | null;
        };
        RenameRequest: {
            /** @description 1 to 63 letters, digits and hyphens; starts and ends with a letter or digit. */
            name: string;
        };
        ReplicatedItem: {
            /** @description Primary, Recovery */
            activeLocation: string;
            agentVersion: string;
            allowedOperations: components["schemas"]["OperationView"][];
            /**
             * Format: double
             * @description Bytes per second that changed at the source, over the last minutes; null: not known yet.
             */
            churnBytesPerSecond?: number | null;
            computedAt: components["schemas"]["Time"];
            /** @description A replication session is open. */
            connected: boolean;
            /** @description PrimaryToRecovery, RecoveryToPrimary: where replication leads now, or led last. */
            direction: string;
            disks: components["schemas"]["ItemDiskView"][];
            failover?: components["schemas"]["FailoverView"] | null;
            /** @description Normal: a test failover was cleaned up within six months. Warning: one is due. None: there is no point yet. */
            failoverHealth: string;
            /**
             * Format: double
             * @description Of the last point.
             */
            freezeMs: number;
            healthErrors: components["schemas"]["HealthErrorView"][];
            /** @description Of the machine. */
            id: string;
            keptPoints?: components["schemas"]["KeptPointsView"] | null;
            lastHeartbeatAt?: components["schemas"]["Time"] | null;
            lastRecoveryPoint?: components["schemas"]["PointRef"] | null;
            lastSuccessfulTestFailoverAt?: components["schemas"]["Time"] | null;
            latestAppConsistentPoint?: components["schemas"]["PointRef"] | null;
            /** @description It stays at the target for good, and its source is fenced for good. */
            migrated: boolean;
            name: string;
            /**
             * Format: int64
             * @description Changed at the source and not yet durable at the target.
             */
            pendingBytes: number;
            /** @description What the agent is doing, in words. */
            phase: string;
            policy: string;
            progress?: components["schemas"]["Progress"] | null;
            protectionState: string;
            /** @description Machine that takes this one home, from the reprotect to the commit at home. */
            receiver?: string | null;
            /** @description Normal, Warning, Critical, None */
            replicationHealth: string;
            /**
             * Format: int64
             * @description Grows with every change; the ETag.
             */
            revision: number;
            /**
             * Format: double
             * @description Age of the newest consistent point at the target; null: there is none, or none are made of it any more.
             */
            rpoSeconds?: number | null;
            /** Format: int32 */
            rpoThresholdSeconds: number;
            /** @description The state as a person reads it. */
            status: string;
            target: components["schemas"]["TargetView"];
            testFailover?: components["schemas"]["FailoverView"] | null;
            testFailoverState: string;
        };
        ReplicationGroup: {
            /** Format: int32 */
            appConsistentSeconds: number;
            failingSince?: components["schemas"]["Time"] | null;
            /**
             * Format: double
             * @description From the order to freeze until all machines had thawed: half of the last rounds took no longer, and 99 % of them.
             */
            freezeWindowMsP50?: number | null;
            /** Format: double */
            freezeWindowMsP99?: number | null;
            /** @description Normal, Warning: there are no shared points; None: fewer than two machines, or nothing is known since the server started. */
            health: string;
            lastAppConsistentPoint?: components["schemas"]["SharedPoint"] | null;
            lastSharedPoint?: components["schemas"]["SharedPoint"] | null;
            members: components["schemas"]["GroupMember"][];
            name: string;
            /**
             * Format: int64
             * @description The ETag.
             */
            revision: number;
            /**
             * Format: int64
             * @description Since the server started: tried, and made.
             */
            rounds: number;
            /** Format: int32 */
            shareSeconds: number;
            /** Format: int64 */
            sharedPoints: number;
        };
        ReprotectRequest: {
            /** @description The joined machine that takes the disks home, by name or id. Default: the machine itself. */
            receiver?: string | null;
        };
        ResumeRequest: {
            /** @description What was done or seen; kept with the job. */
            comments?: string;
        };
        RetentionNeed: {
            /**
             * Format: int64
             * @description The full copies beneath the points.
             */
            baseBytes: number;
            /** @description Whether it fits into the file system beside what else is there. */
            fits: boolean;
            /**
             * Format: int64
             * @description What comes in during the retention, at its busiest. Thinning and folding make it less.
             */
            historyBytes: number;
            /**
             * Format: int32
             * @description Null: each machine by its own policy.
             */
            hours?: number | null;
            /** @description False: less time is known than the retention, so the mean was carried on. */
            measured: boolean;
            /** Format: int64 */
            neededBytes: number;
        };
        /**
         * @description RPO, throughput, churn and freeze over a time, slot by slot without gaps. A figure is null where nothing is known of
         *     the slot: the server or the agent was away, or the machine was not replicated.
         */
        Series: {
            /** @enum {string} */
            range: "1h" | "24h" | "7d" | "30d";
            /** Format: int32 */
            rpoThresholdSeconds: number;
            /** Format: int64 */
            slotSeconds: number;
            /** @description The oldest first; the last one is not over yet. */
            slots: components["schemas"]["SeriesSlotView"][];
        };
        SeriesSlotView: {
            /**
             * Format: double
             * @description Churn: what changed on its disks, per second.
             */
            changedBytesPerSecond?: number | null;
            /**
             * Format: double
             * @description The longest freeze; null when there was no point.
             */
            freezeMs?: number | null;
            /** Format: double */
            meanRpoSeconds?: number | null;
            /**
             * Format: int64
             * @description Recovery points.
             */
            points?: number | null;
            /**
             * Format: double
             * @description The highest RPO.
             */
            rpoSeconds?: number | null;
            /**
             * Format: double
             * @description Throughput: what left the machine on the wire, per second, also in copies and comparisons.
             */
            shippedBytesPerSecond?: number | null;
            start: components["schemas"]["Time"];
        };
        /** @description Something is wrong with a server. */
        ServerAlarm: {
            code: string;
            message: string;
            possibleCauses: string;
            recommendedAction: string;
            /** @description Warning, Critical */
            severity: string;
        };
        /** @description One server of the site. */
        ServerFacts: {
            /** @description Addresses that agents and people dial. */
            addresses: string[];
            alarms: components["schemas"]["ServerAlarm"][];
            /**
             * Format: int64
             * @description Changed at the sources and not yet durable at the target, of all machines.
             */
            backlogBytes: number;
            /**
             * Format: int64
             * @description Until the backlog is shipped at that rate.
             */
            backlogEtaSeconds?: number | null;
            /**
             * Format: double
             * @description Over the last minute; null: not known. So with what follows.
             */
            cpuPercent?: number | null;
            detail: string;
            /** @description Normal, Warning, Critical */
            health: string;
            /**
             * Format: int64
             * @description Arrived and in the process server's memory.
             */
            heldBytes: number;
            lastHeartbeatAt?: components["schemas"]["Time"] | null;
            /** Format: double */
            memoryPercent?: number | null;
            name: string;
            /** Format: double */
            receivedBytesPerSecond?: number | null;
            /** @description configuration, process, vault, target, web */
            roles: string[];
            /**
             * Format: int64
             * @description Replication sessions that are open.
             */
            sessions: number;
            /** @description `Connected`, or what is wrong. */
            state: string;
            /** Format: int64 */
            storeCapacityBytes?: number | null;
            /** Format: int64 */
            storeFreeBytes?: number | null;
            version: string;
        };
        SetDisksRequest: {
            /** @description Stable ids of all disks that are to be protected, the boot disk among them. */
            disks: string[];
        };
        SetPolicyRequest: {
            /** @description Name of the policy. */
            policy: string;
        };
        /** @description An instant at which all machines of a group stood still. */
        SharedPoint: {
            /** @description `groupPoint` of the recovery points of the members. */
            id: string;
            instant: components["schemas"]["Time"];
        };
        /** @enum {string} */
        SmtpSecurity: "StartTls" | "Tls" | "None";
        SourceNetwork: {
            cidr: string;
            /** @description Machines that are in it. */
            machines: string[];
        };
        StepDecision: {
            /** @description What was done or seen; kept with the step. */
            comment?: string;
            /**
             * Format: int64
             * @description Index of the step; left out: all that wait (resume), the first that can be skipped (skip).
             */
            step?: number | null;
        };
        StoreMachine: {
            id: string;
            name: string;
            recoveryPoints: number;
            /** Format: int64 */
            storedBytes: number;
        };
        StoreOutlook: {
            /** Format: int64 */
            capacityBytes: number;
            /** Format: int64 */
            freeBytes: number;
            fullAt?: components["schemas"]["Time"] | null;
            /**
             * Format: int64
             * @description By that trend; null: it does not fill up, or no trend is known.
             */
            fullInSeconds?: number | null;
            /**
             * Format: int64
             * @description Trend of the last week; null: less than 6 hours are known.
             */
            growthBytesPerDay?: number | null;
            /** Format: int64 */
            storedBytes: number;
        };
        StoreView: {
            /**
             * Format: int64
             * @description Of the file system that the store is in.
             */
            capacityBytes: number;
            /** Format: int64 */
            freeBytes: number;
            machines: components["schemas"]["StoreMachine"][];
            /**
             * Format: int64
             * @description Of the machines of this vault.
             */
            storedBytes: number;
        };
        /** @description A machine that runs at the target. */
        TargetMachine: {
            /** @description kvm, tcg */
            accelerator: string;
            /** @description Why it does not run, where that is known. */
            detail: string;
            firstOutputAt?: components["schemas"]["Time"] | null;
            /** @description Ports of the host's loopback address that lead into the machine. */
            forwards: components["schemas"]["ForwardView"][];
            /** Format: int32 */
            pid?: number | null;
            /** @description absent, stopped, running, paused */
            power: string;
        };
        /** @description How the machine is started at the target. */
        TargetView: {
            /** Format: int32 */
            cpus: number;
            diskBus: components["schemas"]["DiskBusView"];
            firmware: components["schemas"]["FirmwareView"];
            /** Format: int64 */
            memoryBytes: number;
            name: string;
            nics: components["schemas"]["NicView"][];
            testNics: components["schemas"]["NicView"][];
        };
        TaskView: {
            endedAt?: components["schemas"]["Time"] | null;
            error?: components["schemas"]["Reason"] | null;
            message: string;
            name: string;
            startedAt?: components["schemas"]["Time"] | null;
            /** @description NotStarted, InProgress, Succeeded, Failed, Skipped */
            state: string;
        };
        TestFailoverRequest: {
            /** @description Default: the item's test network. */
            nics?: components["schemas"]["NicView"][] | null;
            /** @description Latest, LatestProcessed (default), LatestAppConsistent, LatestCrashConsistent, or the id of a point. */
            recoveryPoint?: string | null;
        };
        /** @description From hour to hour of the day, in the server's time zone. */
        ThrottleWindow: {
            /** Format: int64 */
            bytesPerSecond: number;
            /** Format: int32 */
            fromHour: number;
            /**
             * Format: int32
             * @description 24: midnight.
             */
            toHour: number;
        };
        /**
         * Format: date-time
         * @description An instant, RFC 3339 in UTC.
         */
        Time: string;
        UnplannedFailoverRequest: {
            /** @description Ship what is pending first, where the source still answers. Default: with `Latest` yes, else no. */
            lastSync?: boolean | null;
            /** @description Latest (default), LatestProcessed, LatestAppConsistent, LatestCrashConsistent, or the id of a point. */
            recoveryPoint?: string | null;
        };
        /** @description What is left out has the default, or stays. */
        UpdateGroupRequest: {
            /**
             * Format: int32
             * @description From one app-consistent one to the next: 3600 to 43200; 0: off.
             */
            appConsistentSeconds?: number | null;
            /**
             * Format: int32
             * @description From one shared point to the next.
             */
            shareSeconds?: number | null;
        };
        User: {
            createdAt: components["schemas"]["Time"];
            mustChangePassword: boolean;
            name: string;
            /**
             * Format: int64
             * @description Grows with every change; the ETag.
             */
            revision: number;
            roles: components["schemas"]["VaultRole"][];
        };
        Vault: {
            createdAt: components["schemas"]["Time"];
            /**
             * Format: int64
             * @description Machines that are joined to it.
             */
            machines: number;
            name: string;
            /** Format: int64 */
            replicatedItems: number;
            /** @description The caller's. */
            role: string;
        };
        VaultRole: {
            /** @description Reader, Operator, Contributor, Owner */
            role: string;
            vault: string;
        };
        WhoAmI: {
            /** @description `session`, `token` or `unixSocket` */
            login: string;
            mustChangePassword: boolean;
            roles: components["schemas"]["VaultRole"][];
            user: string;
        };
        WindowRequest: {
            beginsAt?: components["schemas"]["Time"] | null;
            /** @description At most 31 days after the beginning. */
            endsAt: components["schemas"]["Time"];
            /** @description Name or id; left out: all of the vault. */
            machine?: string | null;
            note?: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    executable: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": number[];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    executableDigest: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listBackups: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Backup"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    make: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Backup"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    login: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["LoginRequest"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["LoginAnswer"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    logout: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    openapiDocument: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": Record<string, never>;
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    password: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PasswordRequest"];
            };
        };
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listVaults: {
        parameters: {
            query?: {
                /** @description Part of the name. */
                name?: string;
                /** @description name (default), createdAt, machines, replicatedItems; with a `-` before it the other way round. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Vault"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createVault: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateVaultRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Vault"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removeVault: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    deliveries: {
        parameters: {
            query?: {
                /** @description `email` or `webhook:NAME` */
                channel?: string;
                /** @description Alert, Test */
                kind?: string;
                /** @description Pending, Delivered, Failed, Cancelled */
                state?: string;
                /** @description -createdAt (default): the newest first; createdAt: the oldest first. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_AlertDelivery"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    settings: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AlertSettings"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    setAlertSettings: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the settings: refused when they were changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["AlertSettingsRequest"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AlertSettings"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    testAlertSettings: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["AlertTestRequest"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AlertTest"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    audit: {
        parameters: {
            query?: {
                /** @description Only what this user did. */
                user?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_AuditView"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    capacity: {
        parameters: {
            query?: {
                /** @description RPO to keep. Default: the lowest threshold among the policies in use. */
                rpoSeconds?: number;
                /** @description What if the link carried this much. */
                bandwidthBytesPerSecond?: number;
                /** @description What if points were kept this long. Default: what each machine's policy says. */
                retentionHours?: number;
                /** @description What if this much more (or less) were stored and changed. */
                growthPercent?: number;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Capacity"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listEvents: {
        parameters: {
            query?: {
                /** @description Name or id. */
                machine?: string;
                /** @description Information, Warning, Critical */
                severity?: string;
                /** @description For example RpoExceeded. */
                code?: string;
                /** @description At or after this instant. */
                since?: components["schemas"]["Time"];
                /** @description Before this instant. */
                until?: components["schemas"]["Time"];
                /** @description -at (default): the newest first; at: the oldest first. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Event"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    streamEvents: {
        parameters: {
            query?: never;
            header?: {
                /** @description id of the last event that was seen */
                "Last-Event-ID"?: string | null;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": string;
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    healthErrors: {
        parameters: {
            query?: {
                /** @description Only of this machine, by name or id. */
                machine?: string;
                /** @description Only this code. */
                code?: string;
                /** @description Information, Warning, Critical */
                severity?: string;
                /**
                 * @description -severity (default): the worst first, of these the oldest; severity, since, code; with a `-` before it the other way
                 *     round.
                 */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_OpenHealthErrorView"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listJobs: {
        parameters: {
            query?: {
                /** @description Name or id. */
                machine?: string;
                /** @description NotStarted, InProgress, Succeeded, Failed, Cancelled, Suspended */
                state?: string;
                /**
                 * @description EnableReplication, DisableReplication, TestFailover, TestFailoverCleanup, PlannedFailover, UnplannedFailover,
                 *     ChangeRecoveryPoint, CommitFailover, CancelFailover, Reprotect, Failback,
                 *     Resynchronize, ChangeDisks, CreateRecoveryPoint, Hydrate, CompleteMigration
                 */
                kind?: string;
                /** @description Who asked for it. */
                user?: string;
                /** @description Created at or after this instant. */
                since?: components["schemas"]["Time"];
                /** @description Created before this instant. */
                until?: components["schemas"]["Time"];
                /** @description -createdAt (default): the newest first; createdAt: the oldest first. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Job"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    exportJobs: {
        parameters: {
            query?: {
                /** @description json (default): an array of jobs; csv: one line each, without the tasks. */
                format?: string;
                /** @description Name or id. */
                machine?: string;
                /** @description As in the list. */
                state?: string;
                /** @description As in the list. */
                kind?: string;
                /** @description Who asked for it. */
                user?: string;
                /** @description Created at or after this instant. */
                since?: components["schemas"]["Time"];
                /** @description Created before this instant. */
                until?: components["schemas"]["Time"];
                /** @description -createdAt (default): the newest first; createdAt: the oldest first. */
                sort?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Job"][];
                    "text/csv": string;
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showJob: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                job: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Job"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    cancelJob: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                job: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Job"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    restartJob: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                job: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    resumeJob: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                job: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ResumeRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    joinTokens: {
        parameters: {
            query?: {
                /** @description Valid, Used, Expired, Revoked */
                state?: string;
                /** @description Only those that this user made. */
                madeBy?: string;
                /**
                 * @description -id (default): the newest first; id, createdAt, expiresAt, usedAt, madeBy, state; with a `-` before it the other way
                 *     round.
                 */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Invitation"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createJoinToken: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["JoinTokenRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CreatedJoinToken"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    revokeJoinToken: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                token: number;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listMachines: {
        parameters: {
            query?: {
                /** @description Part of the name. */
                name?: string;
                /** @description Only those that are replicated, or only those that are not. */
                replicated?: boolean;
                /** @description pass, warning, error */
                prerequisites?: string;
                /**
                 * @description name (default), joinedAt, lastHeartbeatAt, agentVersion, os, memoryBytes, cpus; with a `-` before it the other way
                 *     round.
                 */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Machine"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showMachine: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                machine: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Machine"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removeMachine: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the machine: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                machine: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showAgentUpdate: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                machine: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AgentUpdate"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    orderAgentUpdate: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                machine: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AgentUpdate"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    renameMachine: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the machine: refused when it was changed since */
                "If-Match"?: string | null;
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                machine: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RenameRequest"];
            };
        };
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    revokeMachine: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the machine: refused when it was changed since */
                "If-Match"?: string | null;
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                machine: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listMaintenanceWindows: {
        parameters: {
            query?: {
                /** @description Planned, On, Over */
                state?: string;
                /** @description -id (default): the newest first; id, beginsAt, endsAt, state; with a `-` before it the other way round. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_MaintenanceWindow"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createMaintenanceWindow: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["WindowRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["MaintenanceWindow"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removeMaintenanceWindow: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                window: number;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    mappings: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["NetworkMappings"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    map: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["MapRequest"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Mapped"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listNetworks: {
        parameters: {
            query?: {
                /** @description Part of the name. */
                name?: string;
                /** @description name (default), kind; with a `-` before it the other way round. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Network"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createNetwork: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateNetworkRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Network"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showNetwork: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                network: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Network"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    updateNetwork: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the network: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                network: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NetworkValues"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Network"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removeNetwork: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the network: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                network: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    passphrase: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Joining"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    rotatePassphrase: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Joining"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    scripts: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanScripts"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listPolicies: {
        parameters: {
            query?: {
                /** @description Part of the name. */
                name?: string;
                /** @description Only those that may be edited, or only the twins for the way back. */
                editable?: boolean;
                /**
                 * @description name (default), items, retentionHours, crashConsistentSeconds, rpoThresholdSeconds; with a `-` before it the other
                 *     way round.
                 */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Policy"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createPolicy: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreatePolicyRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Policy"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showPolicy: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                policy: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Policy"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    updatePolicy: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the policy: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                policy: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PolicyValues"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Policy"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removePolicy: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the policy: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                policy: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listRecoveryPlans: {
        parameters: {
            query?: {
                /** @description Part of the name. */
                name?: string;
                /** @description name (default), machineCount; with a `-` before it the other way round. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_RecoveryPlan"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createRecoveryPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreatePlanRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RecoveryPlan"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showRecoveryPlan: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RecoveryPlan"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    updateRecoveryPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the plan: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PlanValues"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RecoveryPlan"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removeRecoveryPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the plan: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    cancelFailoverOfPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    checks: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanChecks"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    commitPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    failbackOfPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    plannedFailoverOfPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    reprotectPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listRuns: {
        parameters: {
            query?: {
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_PlanRun"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showRun: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                plan: string;
                run: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanRun"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    cancelPlanRun: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
                run: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    resumePlanRun: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
                run: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["StepDecision"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    skipStepOfPlanRun: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
                run: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["StepDecision"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    stopPlanRun: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
                run: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    testFailoverOfPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PlanTestRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    testFailoverCleanupOfPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PlanCleanupRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    unplannedFailoverOfPlan: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                plan: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PlanFailoverRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PlanAccepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    registrationKeys: {
        parameters: {
            query?: {
                /** @description Valid, Used, Expired, Revoked */
                state?: string;
                /** @description Only those that this user made. */
                madeBy?: string;
                /**
                 * @description -id (default): the newest first; id, createdAt, expiresAt, usedAt, madeBy, state; with a `-` before it the other way
                 *     round.
                 */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_Invitation"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createRegistrationKey: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["RegistrationKeyRequest"] | null;
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RegistrationKey"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    revokeRegistrationKey: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                key: number;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listReplicatedItems: {
        parameters: {
            query?: {
                /** @description Part of the name. */
                name?: string;
                /** @description Normal, Warning, Critical, None */
                replicationHealth?: string;
                /** @description For example Protected. */
                protectionState?: string;
                /** @description For example TestFailoverCompleted. */
                testFailoverState?: string;
                /** @description Primary, Recovery */
                activeLocation?: string;
                /** @description Name of the policy. */
                policy?: string;
                /**
                 * @description name (default), replicationHealth, protectionState, policy, rpoSeconds, pendingBytes, churnBytesPerSecond,
                 *     lastHeartbeatAt, lastSuccessfulTestFailoverAt; with a `-` before it the other way round.
                 */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_ReplicatedItem"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    enableReplicatedItem: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EnableRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showReplicatedItem: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplicatedItem"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    disableReplicatedItem: {
        parameters: {
            query?: {
                /** @description The recovery points stay: they can be tested and restored from, and are removed by disabling once more. */
                keepPoints?: boolean;
                /** @description For how many days; default: until they are removed by hand. */
                keepDays?: number;
            };
            header?: {
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    cancelFailover: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    changeRecoveryPoint: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ChangeRecoveryPointRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    commitReplicatedItem: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    completeMigration: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CompleteMigrationRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    setDisks: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetDisksRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    failback: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    preview: {
        parameters: {
            query?: {
                /** @description Of a test failover; the same as that operation. */
                test?: boolean;
                /** @description Default: UnplannedFailover. */
                operation?: "TestFailover" | "PlannedFailover" | "UnplannedFailover" | "Failback";
            };
            header?: never;
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FailoverPreview"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    hydrate: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["HydrateRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    plannedFailover: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    setPolicy: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetPolicyRequest"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplicatedItem"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listRecoveryPoints: {
        parameters: {
            query?: {
                /** @description AppConsistent, CrashConsistent, Fuzzy */
                consistency?: string;
                /** @description -instant (default): the newest first; instant: the oldest first. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_RecoveryPoint"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createRecoveryPoint: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreatePointRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    reprotect: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ReprotectRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    resynchronizeReplicatedItem: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    series: {
        parameters: {
            query?: {
                /** @description Time up to now. Default: 24h. */
                range?: "1h" | "24h" | "7d" | "30d";
            };
            header?: never;
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Series"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    targetMachine: {
        parameters: {
            query?: {
                /** @description The machine of the test failover, not that of the failover. */
                test?: boolean;
            };
            header?: never;
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TargetMachine"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    console: {
        parameters: {
            query?: {
                /** @description The machine of the test failover, not that of the failover. */
                test?: boolean;
            };
            header?: never;
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The WebSocket is open */
            101: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    screenshot: {
        parameters: {
            query?: {
                /** @description The machine of the test failover, not that of the failover. */
                test?: boolean;
            };
            header?: never;
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "image/png": string;
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    serialLog: {
        parameters: {
            query?: {
                /** @description The machine of the test failover, not that of the failover. */
                test?: boolean;
            };
            header?: never;
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    startMachine: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TargetMachine"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    setTarget: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TargetView"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplicatedItem"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    testFailover: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TestFailoverRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    testFailoverCleanup: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CleanupRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    unplannedFailover: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
                /** @description ETag of the item: refused when it was changed since */
                "If-Match"?: string;
            };
            path: {
                vault: string;
                item: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["UnplannedFailoverRequest"];
            };
        };
        responses: {
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Accepted"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listReplicationGroups: {
        parameters: {
            query?: {
                /** @description Part of the name. */
                name?: string;
                /** @description name (default), health, shareSeconds; with a `-` before it the other way round. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_ReplicationGroup"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createReplicationGroup: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateGroupRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplicationGroup"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showReplicationGroup: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                group: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplicationGroup"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    updateReplicationGroup: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the group: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                group: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["UpdateGroupRequest"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplicationGroup"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removeReplicationGroup: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the group: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                group: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    addMember: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the group: refused when it was changed since */
                "If-Match"?: string | null;
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                group: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["AddMemberRequest"];
            };
        };
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplicationGroup"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removeMember: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the group: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                group: string;
                machine: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ReplicationGroup"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    assignRoleAssignment: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the user: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                user: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["AssignRequest"];
            };
        };
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    unassignRoleAssignment: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the user: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                user: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    servers: {
        parameters: {
            query?: {
                /** @description configuration, process, vault, target, web */
                role?: string;
                /** @description Normal, Warning, Critical */
                health?: string;
                /**
                 * @description name (default), health, state, cpuPercent, memoryPercent, storeFreeBytes, backlogBytes; with a `-` before it the
                 *     other way round.
                 */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_ServerFacts"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    store: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["StoreView"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    tokens: {
        parameters: {
            query?: {
                /** @description Only of this user. */
                user?: string;
                /** @description Only those that are revoked, or only those that are not. */
                revoked?: boolean;
                /** @description id (default), name, user, role, createdAt, expiresAt, lastUsedAt; with a `-` before it the other way round. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_ApiToken"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createToken: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateTokenRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CreatedToken"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    revokeToken: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                token: number;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    listUsers: {
        parameters: {
            query?: {
                /** @description Part of the name. */
                name?: string;
                /** @description Role in this vault: Reader, Operator, Contributor, Owner */
                role?: string;
                /** @description name (default), createdAt; with a `-` before it the other way round. */
                sort?: string;
                /** @description Most items to answer. */
                limit?: number;
                /** @description `nextCursor` of the part before. */
                cursor?: string;
            };
            header?: never;
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Page_User"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    createUser: {
        parameters: {
            query?: never;
            header?: {
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateUserRequest"];
            };
        };
        responses: {
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["OneTimePassword"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    showUser: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                vault: string;
                user: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["User"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    removeUser: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the user: refused when it was changed since */
                "If-Match"?: string | null;
            };
            path: {
                vault: string;
                user: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    resetPassword: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the user: refused when it was changed since */
                "If-Match"?: string | null;
                /** @description An order that is sent again under the same key gets the first answer and is not carried out again */
                "Idempotency-Key"?: string;
            };
            path: {
                vault: string;
                user: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["OneTimePassword"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    whoami: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["WhoAmI"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    healthz: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Healthz"];
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    script: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/x-shellscript": string;
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
    metrics: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Prometheus text format 0.0.4 */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
            /** @description An error, with what to do about it */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/problem+json": components["schemas"]["Problem"];
                };
            };
        };
    };
}
