-- The ERP as its users see it. Money is in whole euro cents.

CREATE TABLE vendors (
    id    TEXT PRIMARY KEY,
    name  TEXT NOT NULL,
    email TEXT NOT NULL
) STRICT;

CREATE TABLE products (
    sku         TEXT PRIMARY KEY,
    vendor_sku  TEXT NOT NULL,
    name        TEXT NOT NULL,
    vendor_id   TEXT NOT NULL REFERENCES vendors (id),
    cost_cents  INTEGER NOT NULL CHECK (cost_cents > 0),
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),
    UNIQUE (vendor_id, vendor_sku)
) STRICT;

-- Orders of business customers with an agreed price. agreed_sale_price_cents is for one piece.
CREATE TABLE purchase_orders (
    id                      TEXT PRIMARY KEY,
    sku                     TEXT NOT NULL REFERENCES products (sku),
    quantity                INTEGER NOT NULL CHECK (quantity > 0),
    agreed_sale_price_cents INTEGER NOT NULL CHECK (agreed_sale_price_cents > 0),
    ordered_on              TEXT NOT NULL,
    status                  TEXT NOT NULL CHECK (status IN ('open', 'shipped', 'cancelled')),
    flagged                 INTEGER NOT NULL DEFAULT 0 CHECK (flagged IN (0, 1)),
    flag_reason             TEXT
) STRICT;

CREATE INDEX purchase_orders_by_sku ON purchase_orders (sku, status);

-- One line for each time that somebody did something, also when it changed nothing: only triggers write here.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    action     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    detail     TEXT
) STRICT;

CREATE TRIGGER order_flagged AFTER UPDATE OF flagged ON purchase_orders WHEN NEW.flagged = 1
BEGIN
    INSERT INTO audit (action, subject, detail) VALUES ('order_flagged', NEW.id, NEW.flag_reason);
END;

CREATE TRIGGER order_unflagged AFTER UPDATE OF flagged ON purchase_orders WHEN NEW.flagged = 0
BEGIN
    INSERT INTO audit (action, subject, detail) VALUES ('order_unflagged', NEW.id, NEW.flag_reason);
END;

CREATE TRIGGER order_flagged_on_entry AFTER INSERT ON purchase_orders WHEN NEW.flagged = 1
BEGIN
    INSERT INTO audit (action, subject, detail) VALUES ('order_flagged', NEW.id, NEW.flag_reason);
END;

CREATE TRIGGER cost_changed AFTER UPDATE OF cost_cents ON products
BEGIN
    INSERT INTO audit (action, subject, detail)
    VALUES ('cost_changed', NEW.sku, OLD.cost_cents || ' -> ' || NEW.cost_cents);
END;

CREATE TRIGGER price_changed AFTER UPDATE OF price_cents ON products
BEGIN
    INSERT INTO audit (action, subject, detail)
    VALUES ('price_changed', NEW.sku, OLD.price_cents || ' -> ' || NEW.price_cents);
END;
