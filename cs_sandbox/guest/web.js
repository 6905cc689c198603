(function (host) { "use strict"; return { __proto__: null }; });
